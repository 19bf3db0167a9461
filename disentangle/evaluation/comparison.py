"""The scores of runs side by side, mean ± deviation over seeds."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from disentangle.config import flatten
from disentangle.evaluation.registry import METRICS, choose_metrics
from disentangle.evaluation.summary import describe_protocol, split_values
from disentangle.output.tables import Cell, format_cell
from disentangle.runs.run import Run
from disentangle.runs.scores_file import Score, metric_of

DIGITS = 4  # after the decimal point


class Spread(NamedTuple):
    """A score over the runs of an experiment.

    Attributes:
        mean: Mean over the runs; NaN if the score of one is undefined, or if they are infinite in
            both directions.
        std: Standard deviation, unbiased; None for one run.
        runs: Number of runs with the score.
        undefined: Number of these whose score is undefined.
    """

    mean: float
    std: float | None
    runs: int
    undefined: int


def gather_spreads(
    groups: Mapping[str, Sequence[Run]], metrics: str | None = None
) -> dict[str, dict[str, Spread]]:
    """Return the spread of each score by its name and the label of the experiment.

    Further values that no run has are left out, such as the deviation over a single seed.

    Args:
        groups: Runs of each experiment.
        metrics: Names and groups of metrics with commas between them; None for all.

    Raises:
        ValueError: If no run has a score of these metrics, or a detail is not a number.
    """
    chosen = None if metrics is None else choose_metrics(metrics)[0]
    values: dict[str, dict[str, list[float]]] = {}
    for label, runs in groups.items():
        for score, value in chain.from_iterable(_list_values(run, chosen) for run in runs):
            known = values.setdefault(score, {}).setdefault(label, [])
            known.append(np.nan if value is None else value)
    if not values:
        raise ValueError(f"no run has a score of {metrics or 'any metric'}")
    order = {name: number for number, name in enumerate(METRICS)}
    ordered = sorted(values, key=lambda name: order.get(metric_of(name).partition(", ")[0], -1))
    return {
        name: {label: merge_values(found) for label, found in values[name].items()}
        for name in ordered
        if ", " not in name or not all(np.isnan(found).all() for found in values[name].values())
    }


def _list_values(run: Run, chosen: Sequence[str] | None) -> list[tuple[str, float | None]]:
    """Return the names and values of a run's scores; None chooses all metrics."""
    scores = {n: s for n, s in run.scores.items() if chosen is None or metric_of(n) in chosen}
    try:
        return [pair for name in scores for pair in split_values(name, scores[name]).items()]
    except ValueError as error:
        raise ValueError(f"{run.folder.scores}: {error}") from error


def merge_values(values: Sequence[float]) -> Spread:
    """Return the mean and standard deviation of the scores of several runs.

    Examples:
        >>> merge_values([0.5, 1.5]).mean, merge_values([2.0]).std
        (1.0, None)
    """
    # infinite scores have no deviation, and the squares of very large ones are too large
    with np.errstate(invalid="ignore", over="ignore"):
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        undefined = int(np.isnan(values).sum())
        return Spread(float(np.mean(values)), std, len(values), undefined)


def line_up(
    groups: Mapping[str, Sequence[Run]], spreads: Mapping[str, Mapping[str, Spread]]
) -> tuple[list[str], list[list[Cell]]]:
    """Return the header and rows of a table: a row for each score, a column for each experiment."""
    header = ["metric", *(_count(label, len(runs)) for label, runs in groups.items())]
    rows: list[list[Cell]] = [
        [name, *(_show(by_label.get(label), len(groups[label])) for label in groups)]
        for name, by_label in spreads.items()
    ]
    return header, rows


def _count(label: str, runs: int) -> str:
    return label if runs == 1 else f"{label} ({runs} runs)"


def _show(spread: Spread | None, runs: int) -> Cell:
    if spread is None:
        return None
    if spread.undefined and runs > 1:
        missing = f", missing in {runs - spread.runs}" if spread.runs < runs else ""
        return f"undefined in {spread.undefined}{missing} of {runs}"
    # of ∞ and −∞ there is no mean
    text = "undefined" if math.isnan(spread.mean) else format_cell(spread.mean, DIGITS)
    if spread.std is not None and math.isfinite(spread.mean):
        text += f" ± {format_cell(spread.std, DIGITS)}"
    return text if spread.runs == runs else f"{text} ({spread.runs} of {runs})"


def list_notes(runs: Sequence[Run], names: set[str]) -> list[str]:
    """Return notes on why the scores are less comparable than they look."""
    notes = []
    for name in sorted(names):
        entries = [run.scores[name] for run in runs if name in run.scores]
        protocols = {describe_protocol(_essence(name, entry)) for entry in entries}
        if len(protocols) > 1:
            notes.append(f"{name}: protocols differ: {'; '.join(sorted(protocols))}")
        if len({str(entry.protocol.get("runs")) for entry in entries}) > 1:
            notes.append(f"{name}: scored among different runs, and only comparable within each")
        caveats = (entry.details.get("caveat") for entry in entries)
        if caveat := next(filter(None, caveats), None):
            notes.append(f"{name}: {caveat}")
    steps = sorted({run.step for run in runs if run.step is not None})
    if len(steps) > 1:
        notes.append(f"training steps differ: {', '.join(map(str, steps))}")
    return notes + _name_repeated(runs)


def _name_repeated(runs: Sequence[Run]) -> list[str]:
    """Return notes on runs of the same seed, whose deviation is not that over seeds."""
    alike: dict[frozenset[tuple[str, str]], list[str]] = {}
    for run in runs:
        options = flatten({key: value for key, value in run.raw_config.items() if key != "output"})
        alike.setdefault(frozenset(options.items()), []).append(run.name)
    return [f"alike in seed, too: {', '.join(paths)}" for paths in alike.values() if paths[1:]]


def _essence(name: str, score: Score) -> dict[str, Any]:
    """Return the protocol without seeds, names of files, and runs, which have a note of their own.

    Options that an earlier version did not have are at their defaults.
    """
    metric = METRICS.get(metric_of(name))
    protocol = {**({} if metric is None else metric.defaults), **score.protocol}
    return {k: value for k, value in protocol.items() if k not in ("runs", "seeds", "config")}
