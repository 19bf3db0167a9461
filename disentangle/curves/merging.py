"""Runs of the same experiment as one curve."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.run import Run

if TYPE_CHECKING:
    from disentangle.output.figures import Curve


def group_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Group runs by experiment, under the label of its curve."""
    return {
        name_curve(label, len(group)): group for label, group in group_by_experiment(runs).items()
    }


def name_curve(label: str, runs: int) -> str:
    """Return the label of the curve of an experiment with so many runs.

    Examples:
        >>> name_curve("NOG", 1), name_curve("NOG", 3)
        ('NOG', 'NOG (mean, range of 3)')
    """
    return f"{label} (mean, range of {runs})" if runs > 1 else label


def merge_runs(label: str, runs: Sequence[dict[int, float]], *, logarithmic: bool) -> "Curve":
    """Return one curve for the values by step of several runs: their mean and their range.

    Args:
        label: Label of the curve.
        runs: Values of one or more runs.
        logarithmic: Whether the mean is the geometric one; zero, which a logarithmic axis cannot
            show, is then left out.

    Examples:
        >>> curve = merge_runs("NOG", [{1: 1.0, 2: 5.0}, {1: 100.0}], logarithmic=True)
        >>> curve.steps.tolist(), curve.middle.round(6).tolist(), curve.highest.tolist()
        ([1, 2], [10.0, 5.0], [100.0, 5.0])
    """
    from disentangle.output.figures import Curve

    steps = sorted(set().union(*runs))
    values = np.array([[run.get(step, np.nan) for step in steps] for run in runs])
    shown = np.isfinite(values) & ((values > 0) | (not logarithmic))
    X = np.ma.masked_array(values, ~shown)
    middle = np.ma.exp(np.ma.log(X).mean(axis=0)) if logarithmic else X.mean(axis=0)
    edges = (np.ma.filled(edge, np.nan) for edge in (middle, X.min(axis=0), X.max(axis=0)))
    return Curve(label, np.array(steps), *edges)
