"""`disentangle plot-activeness RUN…`: how much each subspace changed the image, step by step.

A panel for each choice of techniques, a line for each subspace: one that drops away from the others
is collapsing.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jsonargparse import ArgumentParser

from disentangle.cli.common import bad_input_exits
from disentangle.config.arguments import new_parser, parse_arguments
from disentangle.curves import (
    add_output_arguments,
    choose_file,
    group_runs,
    read_metrics,
    write_picture,
)
from disentangle.curves.activeness import (
    WatchedRun,
    draw_activeness,
    gather_subspaces,
    read_subspaces,
)
from disentangle.runs.metrics_log import PREFIX
from disentangle.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from disentangle.output.figures import Curve

COMMAND = "plot-activeness"


def main(arguments: Sequence[str]) -> int:
    """Draws the activeness of subspaces; returns the exit status."""
    with bad_input_exits(COMMAND):
        options = parse_arguments(build_parser(), arguments)
        paths = {Path(path).resolve(): path for path in options.run}  # each run once
        folders = [RunFolder.open(path) for path in paths.values()]
        file = choose_file(folders, options.output, PREFIX, overwrite=options.overwrite)
        panels = gather_subspaces(group_runs(read_run(folder) for folder in folders))
        check_drawable(panels)
    picture = draw(panels, file.suffix[1:])
    with bad_input_exits(COMMAND):  # a folder may be there and not be ours to write in
        write_picture(file, picture, overwrite=options.overwrite)
    return 0


def build_parser() -> ArgumentParser:
    """The options of the command."""
    parser = new_parser(COMMAND)
    parser.add_argument("run", type=str, nargs="+", help="Run folders, a panel for each.")
    add_output_arguments(parser)
    return parser


def read_run(folder: RunFolder) -> WatchedRun:
    """The activeness in the `metrics.jsonl` of a run.

    Raises:
        ValueError: If there is none.
    """
    if folder.classifies:
        raise ValueError(f"{folder.path} is a run of the task classification: it has no subspaces")
    subspaces = read_subspaces(read_metrics(folder))
    if not subspaces:
        raise ValueError(
            f"{folder.path} has no records of {PREFIX} (training.activeness_every, by default "
            "as sample_every, may be 0 or more than its steps)"
        )
    return WatchedRun(folder, folder.read_config(), subspaces)


def check_drawable(panels: Mapping[str, Sequence["Curve"]]) -> None:
    """Says how many points a logarithmic axis cannot show.

    Raises:
        ValueError: If it can show none.
    """
    gaps = np.concatenate([np.isnan(c.middle) for curves in panels.values() for c in curves])
    if gaps.all():
        raise ValueError("no activeness is above 0: no subspace changed the image at any step")
    if gaps.any():
        print(f"{gaps.sum()} of {len(gaps)} points are 0 and leave gaps", file=sys.stderr)


def draw(panels: Mapping[str, Sequence["Curve"]], kind: str) -> bytes:
    """The content of the file of the figure."""
    from disentangle.output.figures import encode_figure  # matplotlib takes a moment

    return encode_figure(draw_activeness(panels), kind)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
