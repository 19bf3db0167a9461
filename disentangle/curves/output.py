"""Where a figure of curves goes."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from disentangle.output.text import escape_control_characters
from disentangle.runs.run_folder import RunFolder

FORMATS = ("png", "pdf", "svg")


def add_output_arguments(parser: ArgumentParser) -> None:
    """The options that say where a figure goes."""
    parser.add_argument(
        "--output",
        type=str,
        help=f"Of kind {', '.join(FORMATS)}; default for one run: in its folder `plots`.",
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace the file.")


def choose_file(
    folders: Sequence[RunFolder], output: str | None, name: str, *, overwrite: bool
) -> Path:
    """Where to write.

    Args:
        folders: The runs that are drawn.
        output: What was asked for.
        name: Of the file in the folder of a single run.
        overwrite: Whether a file may be replaced.

    Raises:
        ValueError: If it was not said, or nothing can or may be written there.
    """
    if output is not None:
        file = Path(output)
        folder = file.parent
    elif len(folders) == 1:
        folder = folders[0].path
        file = folders[0].plots / f"{name}.png"
    else:
        raise ValueError(f"--output FILE is needed to draw {len(folders)} runs together")
    if file.suffix[1:] not in FORMATS:
        endings = ", ".join(f".{kind}" for kind in FORMATS)
        raise ValueError(f"--output must end in one of {endings}, got {file}")
    if not folder.is_dir():
        raise ValueError(f"{file} cannot be written: there is no folder {folder}")
    if file.exists() and not overwrite:
        raise ValueError(f"{file} exists: add --overwrite to replace it, or choose --output")
    return file


def write_picture(file: Path, picture: bytes, *, overwrite: bool) -> None:
    """Writes a figure and says where.

    Raises:
        OSError: If the file cannot be written, or is there and was not to be replaced.
    """
    file.parent.mkdir(exist_ok=True)
    with file.open("wb" if overwrite else "xb") as stream:
        stream.write(picture)
    print(escape_control_characters(f"figure: {file}"))
