"""Conditioning of the layers of the runs of a report."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from disentangle.curves import name_curve
from disentangle.curves.conditioning import (
    QUANTITY_LABELS,
    Layers,
    draw_conditioning,
    gather_layers,
    read_layers,
)
from disentangle.orthogonality.conditioning import QUANTITIES
from disentangle.reporting.document import Block, Picture, Points, Section, Table, Tables, Text
from disentangle.reporting.pictures import COLUMNS, picture_of_figure
from disentangle.reporting.runs import Groups, name_curves
from disentangle.runs.run import Run

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
    """Draw a figure and a table for each quantity that was logged."""
    blocks: list[Block] = []
    tables: list[Table] = []
    having: set[Run] = set()
    for quantity in QUANTITIES:
        measure, found = choose_measure(groups, quantity)
        if found:
            having |= found.keys()
            shown = {
                name_curve(label, len(runs)): [found[run] for run in runs if run in found]
                for label, runs in groups.items()
            }
            layers = dict.fromkeys(chain.from_iterable(found.values()))
            panels = gather_layers(shown, layers, measure)
            blocks.append(_draw(panels, quantity, measure, name_curves(groups)))
            tables.append(_tabulate(panels, f"{MEASURES[measure]} of the {_name(quantity)}"))
    if not tables:
        nothing = "No conditioning was logged: training.conditioning_every may be 0."
        return Section(TITLE, [Text(nothing)])
    blocks += [Text("When it was last measured:"), Tables(tables)]
    missing = [
        f"{run.name} has no records of conditioning"
        for run in chain.from_iterable(groups.values())
        if run not in having
    ]
    return Section(TITLE, [*blocks, Points(missing)] if missing else blocks)


def choose_measure(groups: Groups, quantity: str) -> tuple[str, dict[Run, Layers]]:
    """Return the measure to show of a quantity, and its values of runs with any finite one."""
    runs = list(chain.from_iterable(groups.values()))
    for measure in MEASURES:
        known = ((run, read_layers(run.metrics, quantity, measure)) for run in runs)
        found = {run: layers for run, layers in known if any(map(_is_shown, layers.values()))}
        if found:
            break
    return measure, found


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
    """Return a table of the last values of each layer, with their range over runs."""
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
