"""How well conditioned the layers of the runs of a report were."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from disentangle.curves import name_curve
from disentangle.curves.conditioning import (
    QUANTITY_LABELS,
    ConditionedRun,
    draw_conditioning,
    gather_layers,
    read_layers,
)
from disentangle.orthogonality.conditioning import QUANTITIES
from disentangle.reporting.document import Block, Picture, Points, Section, Table, Tables, Text
from disentangle.reporting.pictures import COLUMNS, picture_of_figure
from disentangle.reporting.runs import Groups, name_curves

if TYPE_CHECKING:
    from disentangle.output.figures import Curve

TITLE = "Conditioning"
Panels = Mapping[str, Sequence["Curve"]]
# The first of these that is finite anywhere is shown: a gradient may always be singular.
MEASURES = {
    "condition": "Condition number λmax/λmin",
    "nonnull_condition": "Condition number without the null space",
}


def draw_section(groups: Groups) -> Section:
    """A figure and a table for each quantity that was logged."""
    blocks: list[Block] = []
    tables, having = [], set()
    for quantity in QUANTITIES:
        measure, found = choose_measure(groups, quantity)
        if found:
            runs = list(chain.from_iterable(found.values()))
            having |= {run.folder.path for run in runs}
            layers = dict.fromkeys(chain.from_iterable(run.layers for run in runs))
            panels = gather_layers(found, layers, measure)
            blocks.append(_draw(panels, quantity, measure, name_curves(groups)))
            tables.append(_tabulate(panels, f"{MEASURES[measure]} of the {_name(quantity)}"))
    if not tables:
        nothing = "No conditioning was logged: training.conditioning_every may be 0."
        return Section(TITLE, [Text(nothing)])
    blocks += [Text("When it was last measured:"), Tables(tables)]
    missing = [
        f"{run.name} has no records of conditioning"
        for run in chain.from_iterable(groups.values())
        if run.folder.path not in having
    ]
    return Section(TITLE, [*blocks, Points(missing)] if missing else blocks)


def choose_measure(groups: Groups, quantity: str) -> tuple[str, dict[str, list[ConditionedRun]]]:
    """What is shown of a quantity, and the runs that have any finite value of it."""
    for measure in MEASURES:
        having: dict[str, list[ConditionedRun]] = {}
        for label, runs in groups.items():
            for run in runs:
                layers = read_layers(run.lines, quantity, measure)
                if any(map(_is_shown, layers.values())):
                    shown = ConditionedRun(run.folder, run.config, layers)
                    having.setdefault(name_curve(label, len(runs)), []).append(shown)
        if having:
            break
    return measure, having


def _is_shown(values: Mapping[int, float]) -> bool:
    return any(map(np.isfinite, values.values()))


def _draw(panels: Panels, quantity: str, measure: str, order: Sequence[str]) -> Picture:
    figure = draw_conditioning(panels, quantity, measure, columns=COLUMNS, order=order)
    words = f"{MEASURES[measure]} of the {_name(quantity)} over the steps"
    gaps = sum(np.isnan(curve.middle).sum() for curves in panels.values() for curve in curves)
    caption = f"{words}: 1 is the best." + (" Gaps: singular or not finite." if gaps else "")
    return picture_of_figure(figure, f"conditioning-{quantity}", f"{words}.", caption)


def _name(quantity: str) -> str:
    return QUANTITY_LABELS[quantity].replace("'", "’")


def _tabulate(panels: Panels, caption: str) -> Table:
    """The last values of each layer, with their range over runs."""
    labels = dict.fromkeys(curve.label for curves in panels.values() for curve in curves)
    rows = []
    for layer, curves in panels.items():
        found = {curve.label: _show_last(curve) for curve in curves}
        rows.append([layer, *(found.get(label, "") for label in labels)])
    return Table(["layer", *labels], rows, caption)


def _show_last(curve: "Curve") -> str:
    last = max(np.flatnonzero(np.isfinite(curve.middle)), default=None)
    if last is None:
        return "singular"
    middle, lowest, highest = (
        _round(edge[last]) for edge in (curve.middle, curve.lowest, curve.highest)
    )
    return middle if lowest == highest else f"{middle} ({lowest} to {highest})"


def _round(value: float) -> str:
    return f"{value:.0f}" if 1e3 <= value < 1e6 else f"{value:.3g}"
