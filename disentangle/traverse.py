"""`disentangle traverse RUN`: pictures of what every latent axis of a run's model does.

Or of a user's own generator: `--generator FILE.py:NAME`.
A grid and an animation, one of each for every layer. With `--sefa`, of what the directions do that
SeFa finds in the layer that takes in the latents.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from disentangle.cli.common import bad_input_exits
from disentangle.cli.view import View, add_view_arguments, choose_sources, open_view
from disentangle.config.arguments import new_parser, parse_arguments
from disentangle.output.files import check_folder
from disentangle.output.text import escape_control_characters
from disentangle.runs.run import Run
from disentangle.traversal import check_animation
from disentangle.traversal.draw import Animation, check_free, draw_sheets, name_sheets

SAMPLES = 1  # unless told otherwise


def main(arguments: Sequence[str]) -> int:
    """Draw the traversals of a run; return the exit status."""
    with bad_input_exits("traverse"):
        options = parse_arguments(build_parser(), arguments)
        sources = choose_sources([options.run] if options.run else [], options)
        if len(sources) > 1:
            raise ValueError("expected a run folder or --generator, got both")
        if options.animation != "none":
            check_animation(f"traversal.{options.animation}")
        folder = choose_folder(sources[0], options)
        view = open_view(sources[0], options, samples=SAMPLES)
        files = draw(view, folder, options)
    if line := view.describe_dead():
        print(escape_control_characters(line), file=sys.stderr)
    for file in files:
        kind = "grid:     " if file.suffix == ".png" else "animation:"
        print(escape_control_characters(f"{kind} {file}"))
    return 0


def build_parser() -> ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser("traverse")
    parser.add_argument("run", type=str, nargs="?", help="A run folder.")
    add_view_arguments(parser, samples=SAMPLES)
    parser.add_argument(
        "--differences",
        action="store_true",
        help="Below each axis a row of heat maps: where the image changes, against the value "
        "nearest to 0.",
    )
    parser.add_argument(
        "--animation",
        type=Animation,
        default="webp",
        help="MP4 needs the extra `video`.",
    )
    parser.add_argument(
        "--out",
        type=str,
        metavar="FOLDER",
        help="Folder of the pictures; default: `traversals` in the run, or here.",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="Replace pictures in another folder than the run's own, whose are always replaced.",
    )
    return parser


def choose_folder(source: Run | str, options: Namespace) -> Path:
    """Return the folder for the pictures.

    Raises:
        ValueError: If it cannot be written to.
    """
    if options.out is not None:
        folder = Path(options.out)
    else:
        folder = Path("traversals") if isinstance(source, str) else source.folder.traversals
    check_folder(folder)
    return folder


def draw(view: View, folder: Path, options: Namespace) -> list[Path]:
    """Write a grid and an animation of each group of axes; return the files."""
    several = len({axis.group for axis in view.model.axes}) > 1
    name = "sefa" if options.sefa else "traversal"
    sheets = name_sheets(view.axes, name, several=several and not options.sefa)
    own = options.run is not None and options.out is None
    check_free(folder, sheets, options.animation, overwrite=own or options.overwrite)
    return draw_sheets(
        view.model.decode,
        view.latents,
        sheets,
        folder,
        values=view.values,
        differences=options.differences,
        animation=options.animation,
        originals=view.originals,
        title="most active first (in brackets the variance of the image)" if options.sort else None,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
