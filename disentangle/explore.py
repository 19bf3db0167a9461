"""`disentangle explore RUN…`: a page with a slider for every axis of one run, or of two.

Or of a user's own generator: `--generator FILE.py:NAME`.
The page is a single file that needs neither a network nor a server. With `--serve`, a server on
this machine on which all sliders work together.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from disentangle.cli.common import bad_input_exits
from disentangle.cli.view import (
    View,
    add_view_arguments,
    choose_sources,
    name_source,
    open_view,
)
from disentangle.config.arguments import new_parser, parse_arguments
from disentangle.data import GroundTruthData
from disentangle.explorer.page import HeatMap, PageRun
from disentangle.explorer.scores import list_maps, list_scores
from disentangle.explorer.server import build_app, own_folder, start, wait
from disentangle.explorer.writing import ENDINGS, picture_run, write_page
from disentangle.output.files import check_file
from disentangle.output.text import escape_control_characters
from disentangle.runs.run import Run
from disentangle.runs.scores_file import Score

SAMPLES = 4  # unless told otherwise
MOST_RUNS = 2


def main(arguments: Sequence[str]) -> int:
    """Write the page, or serve; return the exit status."""
    with bad_input_exits("explore"):
        options = parse_arguments(build_parser(), arguments)
        check_options(options)
        sources = choose_sources(options.run, options)
        views = [open_view(source, options, samples=SAMPLES) for source in sources]
        if not options.serve:
            runs = [gather(*pair) for pair in zip(sources, views, strict=True)]
            file = Path(options.out)
            write_page(runs, file, values=views[0].values, overwrite=options.overwrite)
    for line in filter(None, (view.describe_dead() for view in views)):
        print(escape_control_characters(line), file=sys.stderr)
    if options.serve:
        serve(name_source(sources[0]), views[0], options)
    else:
        print(escape_control_characters(f"explorer: {file} ({file.stat().st_size / 1000:,.0f} kB)"))
    return 0


def serve(name: str, view: View, options: Namespace) -> None:
    """Serve a view to this machine, until it is interrupted or terminated."""
    decode = view.model.decode
    with own_folder():
        with bad_input_exits("explore"):
            app = build_app(decode, view.latents, view.axes, name=name, limit=options.range)
            start(app, options.port)
        wait(app)


def build_parser() -> ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser("explore")
    parser.add_argument("run", type=str, nargs="*", help="A run folder, or two side by side.")
    add_view_arguments(parser, samples=SAMPLES)
    parser.add_argument("--out", type=str, default="explorer.html", help="File of the page.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the page.")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="Serve to this machine, in place of a page (needs the extra `ui`).",
    )
    parser.add_argument(
        "--port", type=int, help="Port of the server; default: a free one from 7860."
    )
    return parser


def check_options(options: Namespace) -> None:
    """Check the options before models are loaded and decode.

    Raises:
        ValueError: If there are too many runs, the page cannot be written, an option requires
            another, or the package of the server is not there.
        FileExistsError: If the page exists and must not be replaced.
    """
    most = 1 if options.serve else MOST_RUNS
    count = len(options.run) + (options.generator is not None)
    if count > most:
        raise ValueError(f"at most {most} runs can be shown here, got {count}")
    if options.serve:
        if options.port is not None and not 0 < options.port < 2**16:
            raise ValueError(f"--port must be between 1 and 65535, got {options.port}")
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise ValueError("--serve needs gradio: pip install 'disentangle[ui]'") from error
        return
    if options.port is not None:
        raise ValueError("--port requires --serve")
    check_file(Path(options.out), overwrite=options.overwrite, endings=ENDINGS)


def gather(source: Run | str, view: View) -> PageRun:
    """Return the page's content for a run with its scores, or for a user's own generator."""
    scores: Mapping[str, Score] = {}
    maps: list[HeatMap] = []
    if isinstance(source, Run):
        scores = source.scores
        maps = list_maps(scores, view.model.axes, lambda: name_factors(source))
    return picture_run(
        name_source(source),
        view.model.decode,
        view.latents,
        view.axes,
        values=view.values,
        originals=view.originals,
        scores=list_scores(scores),
        maps=maps,
    )


def name_factors(run: Run) -> tuple[str, ...]:
    """Return the names of the factors of a run's data set; none if it is not here or has none."""
    try:
        data = run.config.build_data()
    except (OSError, ValueError):  # a page can be made where the data set is not
        return ()
    return data.factor_names if isinstance(data, GroundTruthData) else ()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
