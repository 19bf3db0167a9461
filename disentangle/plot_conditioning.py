"""`disentangle plot-conditioning RUN…`: how well conditioned the layers of runs were, step by step.

The figure of Song, Sebe and Wang, TPAMI 2022, https://arxiv.org/abs/2212.05599: condition number
over steps, one line for each choice of techniques.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace

from disentangle.cli.common import bad_input_exits
from disentangle.config.arguments import new_parser, parse_arguments
from disentangle.curves import (
    add_output_arguments,
    choose_file,
    group_runs,
    write_picture,
)
from disentangle.curves.conditioning import (
    Layers,
    draw_conditioning,
    gather_layers,
    read_layers,
)
from disentangle.orthogonality.conditioning import (
    MEASURES,
    MEASURES_OF,
    QUANTITIES,
    measure_name,
    split_measure_name,
)
from disentangle.output.tables import Cell, format_table
from disentangle.runs.run import Run, open_runs

if TYPE_CHECKING:
    from disentangle.output.figures import Curve

COMMAND = "plot-conditioning"


def main(arguments: Sequence[str]) -> int:
    """Draw the conditioning of runs; return the exit status."""
    with bad_input_exits(COMMAND):
        options = parse_arguments(build_parser(), arguments)
        runs = open_runs(options.run)
        name = f"{options.quantity}-{options.measure}"
        file = choose_file(runs, options.output, name, overwrite=options.overwrite)
        found = {run: find_layers(run, options.quantity, options.measure) for run in runs}
        layers = choose_layers(found, options.layers)
        groups = {label: [found[run] for run in group] for label, group in group_runs(runs).items()}
        panels = gather_layers(groups, layers, options.measure)
        check_finite(panels, options)
        table = tabulate(runs, options.quantity, layers)
    picture = draw(panels, options, file.suffix[1:])
    with bad_input_exits(COMMAND):  # a folder may be there and not be ours to write in
        write_picture(file, picture, overwrite=options.overwrite)
    print(table)
    return 0


def tabulate(runs: Sequence[Run], quantity: str, layers: Sequence[str]) -> str:
    """Return a table of all measures at the last step at which a layer of a run was measured.

    The condition number of a covariance is that with the `eps` of its meta-layer, in a column.
    """
    measures = MEASURES_OF[quantity]
    header = ["run", "layer", "step", *measures]
    rows: list[list[Cell]] = []
    for run in runs:
        for layer in layers:
            names = [measure_name(layer, quantity, measure) for measure in measures]
            if last := next((line for line in reversed(run.metrics) if names[0] in line), None):
                values = [last.get(name) for name in names]
                rows.append([run.name, layer, last["step"], *values])
    if quantity == "covariance":
        header.append("eps")
        known = {run.name: read_meta_layers(run) for run in runs}
        rows = [[*row, known[str(row[0])].get(str(row[1]))] for row in rows]
    return format_table(header, rows)


def read_meta_layers(run: Run) -> dict[str, float]:
    """Return the `eps` that the SVD meta-layers of a run add to their covariances, by layer."""
    with torch.device("meta"):  # others' configurations can ask for any amount of memory
        return getattr(run.config.build_model(), "meta_layers", {})


def build_parser() -> ArgumentParser:
    """Build the parser of the command."""
    parser = new_parser(COMMAND)
    parser.add_argument("run", type=str, nargs="+", help="Run folders, one line for each.")
    parser.add_argument(
        "--quantity",
        type=Literal[QUANTITIES],
        default="weight",
        help="Quantity to draw: of the Pre-SVD parameters, or of features that a probe recorded.",
    )
    parser.add_argument(
        "--measure", type=Literal[MEASURES], default="condition", help="Measure to draw."
    )
    parser.add_argument("--layers", type=str, nargs="+", help="Default: all, a panel for each.")
    add_output_arguments(parser)
    return parser


def find_layers(run: Run, quantity: str, measure: str) -> Layers:
    """Return the values of one measure in the `metrics.jsonl` of a run.

    Raises:
        ValueError: If there are none; it names the quantities that there are.
    """
    if measure not in MEASURES_OF[quantity]:
        there_is = ", ".join(MEASURES_OF[quantity])
        raise ValueError(f"the {quantity} has no {measure}; choose --measure from {there_is}")
    run.check_trained()
    layers = read_layers(run.metrics, quantity, measure)
    if not layers:
        kinds = [split_measure_name(name) for name in chain.from_iterable(run.metrics)]
        if any(kind[1] == quantity for kind in kinds if kind is not None):
            raise ValueError(
                f"{run.folder.path} has no records of the {measure} of the {quantity}: it was "
                "trained by a version that did not log it"
            )
        recorded = sorted({kind[1] for kind in kinds if kind is not None})
        reason = "training.conditioning_every may be 0 or more than its steps"
        there_is = ", ".join(recorded) or f"none ({reason})"
        raise ValueError(
            f"{run.folder.path} has no records of the {quantity}; recorded: {there_is}"
        )
    return layers


def choose_layers(found: Mapping[Run, Layers], names: Sequence[str] | None) -> list[str]:
    """Return the layers to draw, all or those that are named.

    Raises:
        ValueError: If a name is unknown, or a run has none of them.
    """
    available = list(dict.fromkeys(chain.from_iterable(found.values())))
    chosen = available if names is None else list(dict.fromkeys(names))
    for name in chosen:
        if name not in available:
            known = ", ".join(available)
            raise ValueError(f"there are no records of a layer {name!r}; choose from: {known}")
    for run, layers in found.items():
        if not layers.keys() & set(chosen):
            there_is = ", ".join(layers)
            raise ValueError(f"{run.folder.path} has records of {there_is} only: see --layers")
    return chosen


def check_finite(panels: Mapping[str, Sequence["Curve"]], options: Namespace) -> None:
    """Print how many points cannot be drawn.

    Raises:
        ValueError: If none can.
    """
    gaps = np.concatenate([np.isnan(c.middle) for curves in panels.values() for c in curves])
    if gaps.all():
        raise ValueError(
            f"no {options.measure} of the {options.quantity} is finite: try another --measure"
        )
    if gaps.any():
        print(
            f"{gaps.sum()} of {len(gaps)} points are not finite and leave gaps: of a singular "
            "matrix, --measure nonnull_condition shows more",
            file=sys.stderr,
        )


def draw(panels: Mapping[str, Sequence["Curve"]], options: Namespace, kind: str) -> bytes:
    """Return the content of the figure's file."""
    from disentangle.output.figures import encode_figure  # matplotlib takes a moment

    return encode_figure(draw_conditioning(panels, options.quantity, options.measure), kind)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
