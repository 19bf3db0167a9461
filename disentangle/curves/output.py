"""The file of a figure of curves."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from disentangle.output.files import check_file, write_file
from disentangle.output.text import escape_control_characters
from disentangle.runs.run import Run

FORMATS = (".png", ".pdf", ".svg")


def add_output_arguments(parser: ArgumentParser) -> None:
    """Add the options that say where a figure goes."""
    parser.add_argument(
        "--output",
        type=str,
        help=f"File to write, {', '.join(FORMATS)}; default for one run: in its folder `plots`.",
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace the file.")


def choose_file(runs: Sequence[Run], output: str | None, name: str, *, overwrite: bool) -> Path:
    """Return the file to write.

    Args:
        runs: Runs that are drawn.
        output: Path given on the command line, if any.
        name: File name, without ending, in the folder of a single run.
        overwrite: Whether a file may be replaced.

    Raises:
        ValueError: If there are several runs and no path, or as in `check_file`.
        FileExistsError: If the file exists and must not be replaced.
    """
    if output is None and len(runs) > 1:
        raise ValueError(f"--output FILE is needed to draw {len(runs)} runs together")
    file = runs[0].folder.plots / f"{name}.png" if output is None else Path(output)
    check_file(file, overwrite=overwrite, endings=FORMATS, new_folder=output is None)
    return file


def write_picture(file: Path, picture: bytes, *, overwrite: bool) -> None:
    """Write a figure and print its path; errors as in `write_file`."""
    write_file(file, picture, overwrite=overwrite)
    print(escape_control_characters(f"figure: {file}"))
