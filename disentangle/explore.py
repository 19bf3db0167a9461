"""`disentangle explore RUN…`: a page with a slider for every axis of one run, or of two.

The page is a single file that needs neither a network nor a server. With `--serve`, a server on
this machine on which all sliders work together.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentParser, Namespace

from disentangle.commands import bad_input_exits, parse_arguments, read_run
from disentangle.data import GroundTruthData
from disentangle.explorer.live import build_app, serve
from disentangle.explorer.numbers import list_maps, list_scores
from disentangle.explorer.page import PageRun, build_page
from disentangle.explorer.strips import encode_images, encode_strips
from disentangle.parsing import new_parser
from disentangle.scoring.report import read_report
from disentangle.training.run_folder import RunFolder
from disentangle.traversal import traverse, value_labels
from disentangle.viewing import View, add_view_arguments, open_view

SAMPLES = 4  # unless told otherwise
MOST_RUNS = 2


def main(arguments: Sequence[str]) -> int:
    """Writes the page, or serves; returns the exit status."""
    with bad_input_exits("explore"):
        options = parse_arguments(build_parser(), arguments)
        check_options(options)
        folders = [RunFolder.open(path) for path in options.run]
        views = [open_view(folder, options, samples=SAMPLES) for folder in folders]
        if options.serve:
            (view,) = views
            name = str(folders[0].path)
            app = build_app(
                view.model.decode, view.latents, view.axes, name=name, limit=options.range
            )
        else:
            runs = [gather(*pair) for pair in zip(folders, views, strict=True)]
            values = views[0].values
            page = build_page(runs, value_labels(values), int(values.abs().argmin()))
            file = Path(options.out)
            with file.open("w" if options.overwrite else "x", encoding="utf-8") as stream:
                stream.write(page)
    if options.serve:
        serve(app, options.port)
    else:
        print(f"explorer: {file} ({file.stat().st_size / 1000:,.0f} kB)")
    return 0


def build_parser() -> ArgumentParser:
    """The options of the command."""
    parser = new_parser("explore")
    parser.add_argument("run", type=str, nargs="+", help="A run folder, or two side by side.")
    add_view_arguments(parser, samples=SAMPLES)
    parser.add_argument("--out", type=str, default="explorer.html", help="The page.")
    parser.add_argument("--overwrite", action="store_true", help="Replace the page.")
    parser.add_argument(
        "--serve",
        action="store_true",
        help="Serve to this machine, in place of a page (needs the extra `ui`).",
    )
    parser.add_argument("--port", type=int, help="Of the server; default: a free one from 7860.")
    return parser


def check_options(options: Namespace) -> None:
    """Looks ahead, since loading and decoding take a while.

    Raises:
        ValueError: If the runs are too many, the page cannot or may not be written, an option has
            no meaning, or the package of the server is not there.
    """
    most = 1 if options.serve else MOST_RUNS
    if len(options.run) > most:
        raise ValueError(f"at most {most} runs can be shown here, got {len(options.run)}")
    if options.serve:
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise ValueError("--serve needs gradio: pip install 'disentangle[ui]'") from error
        return
    if options.port is not None:
        raise ValueError("--port has a meaning with --serve only")
    file = Path(options.out)
    if file.suffix != ".html":
        raise ValueError(f"--out must end in .html, got {file}")
    if not file.parent.is_dir():
        raise ValueError(f"{file} cannot be written: there is no folder {file.parent}")
    if file.exists() and not options.overwrite:
        raise ValueError(f"{file} exists: add --overwrite to replace it, or choose --out")


def gather(folder: RunFolder, view: View) -> PageRun:
    """What the page shows of a run."""
    frames = traverse(view.model.decode, view.latents, view.axes, values=view.values)
    with torch.no_grad():
        starts = torch.cat([view.model.decode(z[None]) for z in view.latents])
    scores = read_report(folder.scores)["scores"] if folder.scores.is_file() else {}
    return PageRun(
        name=str(folder.path),
        width=frames.shape[5],
        height=frames.shape[4],
        axes=[{"group": axis.group, "name": axis.name} for axis in view.axes],
        strips=encode_strips(frames),
        starts=encode_images(starts),
        originals=[(name, encode_images(image[None])[0]) for name, image in view.originals.items()],
        scores=list_scores(scores),
        maps=list_maps(scores, view.model.axes, lambda: name_factors(folder)),
    )


def name_factors(folder: RunFolder) -> tuple[str, ...]:
    """The names of the factors of a run's data set; none if it is not here or has none."""
    try:
        data = read_run(folder).build_data()
    except (OSError, ValueError):  # a page can be made where the data set is not
        return ()
    return data.factor_names if isinstance(data, GroundTruthData) else ()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
