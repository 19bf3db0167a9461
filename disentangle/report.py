"""`disentangle report RUN…`: one file about runs that can be sent to somebody else.

Configuration, scores over seeds, losses, conditioning, activeness, samples and traversals, as an
HTML page that needs no network, or as Markdown with its pictures in a folder beside it.
"""

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from disentangle.cli.common import bad_input_exits, pick_device
from disentangle.config.arguments import new_parser, parse_arguments
from disentangle.output.files import check_file, check_folder, refuse_replacement, write_file
from disentangle.output.text import escape_control_characters
from disentangle.reporting.build import build_report
from disentangle.reporting.markdown import build_markdown, picture_files
from disentangle.reporting.page import build_page
from disentangle.reporting.runs import shorten_names
from disentangle.runs.run import open_runs

MOST_TRAVERSALS = 100  # latents side by side: a grid of more is beyond all screens
ENDINGS = {"html": ".html", "markdown": ".md"}


def main(arguments: Sequence[str]) -> int:
    """Write the report; return the exit status."""
    with bad_input_exits("report"):
        options = parse_arguments(build_parser(), arguments)
        file = choose_file(options)
        runs = open_runs(options.run)
        shorten_names(runs)
        for run in runs:
            _ = run.scores  # a damaged file is found before models are loaded
        document = build_report(
            runs,
            title=options.title,
            traversals=options.traversals,
            seed=options.seed,
            device=pick_device(options.device),
            time=datetime.now().astimezone(),
        )
    if file.suffix == ENDINGS["html"]:
        files = {file: build_page(document).encode()}
    else:
        folder = pictures_beside(file)
        files = {folder / name: content for name, content in picture_files(document).items()}
        files[file] = build_markdown(document, folder.name).encode()
    with bad_input_exits("report"):  # a folder may be there and not be ours to write in
        for path, content in files.items():
            write_file(path, content, overwrite=options.overwrite)
    size = sum(map(len, files.values()))
    print(escape_control_characters(f"report: {file} ({size / 1000:,.0f} kB)"))
    return 0


def build_parser() -> ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser("report")
    parser.add_argument("run", type=str, nargs="+", help="Run folders.")
    parser.add_argument(
        "--out",
        type=str,
        help="File: .html, or .md with its pictures in a folder of that name and `_files`; "
        "default: `report` with the ending of the format.",
    )
    parser.add_argument(
        "--format", type=Literal[tuple(ENDINGS)], help="Default: by the ending, or html."
    )
    parser.add_argument("--title", type=str, help="Title of the report.")
    parser.add_argument(
        "--traversals",
        type=int,
        default=1,
        help="Number of latents to start traversals from; with 0 none are drawn.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed for sampling these latents.")
    parser.add_argument("--device", type=str, help="Default: a GPU if there is one.")
    parser.add_argument("--overwrite", action="store_true", help="Replace existing files.")
    return parser


def choose_file(options: Namespace) -> Path:
    """Return the file to write.

    Raises:
        ValueError: If it or the folder of its pictures cannot be written, or a number is out of
            range.
        FileExistsError: If one of them exists and must not be replaced.
    """
    if not 0 <= options.traversals <= MOST_TRAVERSALS:
        raise ValueError(
            f"--traversals must be between 0 and {MOST_TRAVERSALS}, got {options.traversals}"
        )
    file = Path(options.out or f"report{ENDINGS[options.format or 'html']}")
    endings = [ENDINGS[options.format]] if options.format else list(ENDINGS.values())
    check_file(file, overwrite=options.overwrite, endings=endings)
    if file.suffix == ENDINGS["markdown"]:
        check_folder(pictures_beside(file))
        refuse_replacement(pictures_beside(file), overwrite=options.overwrite)
    return file


def pictures_beside(file: Path) -> Path:
    """Return the folder for the pictures of a report in Markdown."""
    return file.with_name(f"{file.stem}_files")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
