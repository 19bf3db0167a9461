"""Losses and accuracies of the runs of a report over the steps of training."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from disentangle.curves import collect_values, merge_runs, name_curve
from disentangle.reporting.document import Block, Points, Section, Text
from disentangle.reporting.pictures import COLUMNS, picture_of_figure
from disentangle.reporting.runs import Groups, name_curves
from disentangle.runs.run import Run

if TYPE_CHECKING:
    from disentangle.output.figures import Curve

TITLE = "Training"


def draw_training(groups: Groups) -> Section:
    """Draw the losses, each on a scale of its own, and the accuracies of classifiers."""
    from disentangle.output.figures import draw_curves  # matplotlib takes a moment

    blocks: list[Block] = []
    for name, wanted, label in (
        ("loss", _is_loss, "loss"),
        ("accuracy", _is_accuracy, "share of the images that are right"),
    ):
        panels, logarithmic = gather_terms(groups, wanted)
        if panels:
            figure = draw_curves(
                panels,
                x_label="optimizer step",
                y_label=label,
                logarithmic=logarithmic and name == "loss",
                shared=name == "accuracy",
                columns=COLUMNS,
                order=name_curves(groups),
            )
            words = f"{name.capitalize()} over the steps of training: {', '.join(panels)}."
            since = "Terms of the loss are means over the steps since the line before in the log."
            caption = f"{words} {since}" if name == "loss" else words
            blocks.append(picture_of_figure(figure, f"training-{name}", words, caption))
    every = list(chain.from_iterable(groups.values()))
    remarks = [f"{r.name} has no log: it has not been trained" for r in every if not r.metrics]
    remarks += [remark for run in every if (remark := find_divergence(run))]
    remarks += [remark for label, runs in groups.items() if (remark := _compare_ends(label, runs))]
    if remarks:
        blocks.append(Points(remarks))
    return Section(TITLE, blocks or [Text("No loss was logged.")])


def find_divergence(run: Run) -> str:
    """Return a remark on where a loss of a run is not finite; empty if all are everywhere.

    Curves leave such values out, and a mean over runs would hide it.
    """
    found = {
        name: [step for step, value in values.items() if not np.isfinite(value)]
        for name, values in collect_values(run.metrics, _name_loss).items()
    }
    if not (bad := {name: steps for name, steps in found.items() if steps}):
        return ""
    first, lines = min(map(min, bad.values())), max(map(len, bad.values()))
    return (
        f"{run.name}: {', '.join(bad)} not finite in {lines} of {len(run.metrics)} lines of the "
        f"log, first at step {first}: left out of the curves"
    )


def _compare_ends(label: str, runs: Sequence[Run]) -> str:
    """Return a remark if the runs of an experiment end at different steps; else empty."""
    ends = sorted({run.metrics[-1]["step"] for run in runs if run.metrics})
    if len(ends) < 2:
        return ""
    return (
        f"{label}: the runs end at steps {', '.join(map(str, ends))}, and a mean is over those "
        "that got so far"
    )


def gather_terms(
    groups: Groups, wanted: Callable[[str], bool]
) -> tuple[dict[str, list["Curve"]], bool]:
    """Return the curves of each term and experiment, and whether a logarithmic axis can show all.

    Args:
        groups: Runs of each experiment.
        wanted: Returns True for the name of a wanted term in the log.
    """
    values = {
        run: collect_values(run.metrics, lambda name: name if wanted(name) else None)
        for runs in groups.values()
        for run in runs
    }
    terms = dict.fromkeys(term for found in values.values() for term in found)
    numbers = (v for found in values.values() for steps in found.values() for v in steps.values())
    positive = all(not number <= 0 for number in numbers)
    merge = partial(merge_runs, logarithmic=positive)
    panels: dict[str, list[Curve]] = {term: [] for term in terms}
    for label, runs in groups.items():
        for term in terms:
            found = [values[run] for run in runs]
            if having := [terms_of[term] for terms_of in found if term in terms_of]:
                panels[term].append(merge(name_curve(label, len(runs)), having))
    return panels, positive


def _name_loss(name: str) -> str | None:
    return name if _is_loss(name) else None


def _is_loss(name: str) -> bool:
    return name in ("loss", "validation/loss") or name.startswith("loss/")


def _is_accuracy(name: str) -> bool:
    return name.endswith(("/top_1", "/top_5"))
