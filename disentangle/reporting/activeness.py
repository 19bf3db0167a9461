"""Activeness of each axis of the generators of a report."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from disentangle.curves import name_curve
from disentangle.curves.activeness import draw_activeness, gather_subspaces, read_subspaces
from disentangle.models import Axis
from disentangle.reporting.document import Block, Picture, Points, Section, Text
from disentangle.reporting.generators import ShownGenerator
from disentangle.reporting.pictures import COLUMNS, picture_of_figure
from disentangle.runs.run import Run

TITLE = "Activeness of the axes"
METRIC = "activeness"
MOST = 40  # bars of a figure
UNIT = "activeness: variance of pixels in [−1, 1]"


class Bars(NamedTuple):
    """Content of a figure of bars.

    Attributes:
        run: Run of the values.
        names: `N` bar labels.
        values: Values, shape `(N,)`.
        errors: Standard errors, shape `(N,)`; None if they are unknown.
        source: Source of the values, for the caption.
    """

    run: Run
    names: list[str]
    values: np.ndarray
    errors: np.ndarray | None
    source: str


def draw_section(shown: Sequence[ShownGenerator]) -> Section:
    """Draw bars for one run of each experiment, and curves over the steps if they were logged."""
    blocks: list[Block] = [
        Text(
            "How much an axis, moved alone, changes the image: next to nothing for a dead one. It "
            "says nothing of what the axis means."
        )
    ]
    found = [(generator, find_scored(generator) or find_logged(generator)) for generator in shown]
    largest = max((np.nan_to_num(bars.values).max() for _, bars in found if bars), default=0.0)
    blocks += [_draw_bars(bars, generator, largest) for generator, bars in found if bars]
    missing = [f"{g.label}: neither evaluated nor logged" for g, bars in found if not bars]
    if (curves := _draw_curves(shown)) is not None:
        blocks.append(curves)
    return Section(TITLE, [*blocks, Points(missing)] if missing else blocks)


def find_scored(generator: ShownGenerator) -> Bars | None:
    """Return the activeness of every axis of the first run that was scored by it; None without."""
    for run in generator.runs:
        details = run.scores[METRIC].details if METRIC in run.scores else {}
        if details.get("per_axis"):
            values = np.array(details["per_axis"], dtype=float)
            errors = np.array(details.get("standard_errors", np.nan), dtype=float)
            axes = () if generator.model is None else generator.model.axes
            source = f"activeness of each axis, scored at step {run.step}"
            if np.isfinite(errors).any():
                source += "; whiskers: standard error"
            errors = np.broadcast_to(errors, values.shape)
            return Bars(run, name_axes(axes, len(values)), values, errors, source)
    return None


def find_logged(generator: ShownGenerator) -> Bars | None:
    """Return the last activeness that the first run with any has logged; None without."""
    for run in generator.runs:
        if subspaces := read_subspaces(run.metrics):
            last = max(step for values in subspaces.values() for step in values)
            values = np.array([values.get(last, np.nan) for values in subspaces.values()])
            source = (
                f"activeness of each subspace, logged in training at step {last} (not evaluated)"
            )
            return Bars(run, list(subspaces), values, None, source)
    return None


def name_axes(axes: Sequence[Axis], count: int) -> list[str]:
    """Return the names of `count` axes, or numbers if there are not as many.

    Examples:
        >>> name_axes((), 2)
        ['axis 0', 'axis 1']
    """
    if len(axes) != count:
        return [f"axis {number}" for number in range(count)]
    several = len({axis.group for axis in axes}) > 1
    return [f"{axis.group}, {axis.name}" if several else axis.name for axis in axes]


def _draw_bars(bars: Bars, generator: ShownGenerator, largest: float) -> Picture:
    from disentangle.output.figures import draw_bars  # matplotlib takes a moment

    kept = np.arange(len(bars.values))
    caption = f"{generator.title(bars.run)}: {bars.source}."
    if len(kept) > MOST:
        kept = np.argsort(-np.nan_to_num(bars.values))[:MOST]
        caption += f" The {MOST} most active of {len(bars.values)}."
    figure = draw_bars(
        [bars.names[i] for i in kept],
        bars.values[kept],
        errors=None if bars.errors is None else bars.errors[kept],
        x_label=UNIT,
        largest=largest,
    )
    words = f"Bars of the activeness of each axis, {generator.label}."
    return picture_of_figure(figure, f"activeness-{generator.number}", words, caption)


def _draw_curves(shown: Sequence[ShownGenerator]) -> Picture | None:
    """Draw the activeness of subspaces over the steps; return None if it was not logged."""
    groups = {name_curve(one.label, len(one.runs)): one.runs for one in shown}
    panels = {
        label: curves
        for label, curves in gather_subspaces(groups).items()
        if any(np.isfinite(curve.middle).any() for curve in curves)
    }
    if not panels:
        return None
    figure = draw_activeness(panels, columns=COLUMNS)
    words = "Activeness of each subspace over the steps of training, as it was logged."
    caption = f"{words} One that drops away from the others is collapsing."
    return picture_of_figure(figure, "activeness-training", words, caption)
