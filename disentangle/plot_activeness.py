"""`disentangle plot-activeness RUN…`: how much each subspace changed the image, step by step.

A panel for each choice of techniques, a line for each subspace: one that drops away from the others
is collapsing.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jsonargparse import ArgumentParser

from disentangle.cli.common import bad_input_exits
from disentangle.config.arguments import new_parser, parse_arguments
from disentangle.curves import (
    add_output_arguments,
    choose_file,
    group_runs,
    write_picture,
)
from disentangle.curves.activeness import (
    draw_activeness,
    gather_subspaces,
    read_subspaces,
)
from disentangle.runs.metrics_log import PREFIX
from disentangle.runs.run import Run, open_runs

if TYPE_CHECKING:
    from disentangle.output.figures import Curve

COMMAND = "plot-activeness"


def main(arguments: Sequence[str]) -> int:
    """Draw the activeness of subspaces; return the exit status."""
    with bad_input_exits(COMMAND):
        options = parse_arguments(build_parser(), arguments)
        runs = open_runs(options.run)
        file = choose_file(runs, options.output, PREFIX, overwrite=options.overwrite)
        for run in runs:
            check_subspaces(run)
        panels = gather_subspaces(group_runs(runs))
        check_drawable(panels)
    picture = draw(panels, file.suffix[1:])
    with bad_input_exits(COMMAND):  # a folder may be there and not be ours to write in
        write_picture(file, picture, overwrite=options.overwrite)
    return 0


def build_parser() -> ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(COMMAND)
    parser.add_argument("run", type=str, nargs="+", help="Run folders, a panel for each.")
    add_output_arguments(parser)
    return parser


def check_subspaces(run: Run) -> None:
    """Raise `ValueError` unless a run has logged the activeness of its subspaces."""
    path = run.folder.path
    if run.classifies:
        raise ValueError(f"{path} is a run of the task classification: it has no subspaces")
    run.check_trained()
    if not read_subspaces(run.metrics):
        raise ValueError(
            f"{path} has no records of {PREFIX} (training.activeness_every, by default "
            "as sample_every, may be 0 or more than its steps)"
        )


def check_drawable(panels: Mapping[str, Sequence["Curve"]]) -> None:
    """Print how many points a logarithmic axis cannot show.

    Raises:
        ValueError: If it can show none.
    """
    gaps = np.concatenate([np.isnan(c.middle) for curves in panels.values() for c in curves])
    if gaps.all():
        raise ValueError("no activeness is above 0: no subspace changed the image at any step")
    if gaps.any():
        print(f"{gaps.sum()} of {len(gaps)} points are 0 and leave gaps", file=sys.stderr)


def draw(panels: Mapping[str, Sequence["Curve"]], kind: str) -> bytes:
    """Return the content of the figure's file."""
    from disentangle.output.figures import encode_figure  # matplotlib takes a moment

    return encode_figure(draw_activeness(panels), kind)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
