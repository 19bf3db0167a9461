"""The scores of a run and the heat maps behind them, for a page."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import isfinite

from disentangle.evaluation.heat_maps import MAPS
from disentangle.evaluation.summary import split_values
from disentangle.explorer.page import HeatMap
from disentangle.models import Axis
from disentangle.runs.scores_file import FITTED, Score


def list_scores(scores: Mapping[str, Score]) -> list[tuple[str, float | None]]:
    """Return the numbers that tables show, with the names that they have there; None if infinite.

    Raises:
        ValueError: If a detail that tables show is not a number.

    Examples:
        >>> list_scores({"mig": Score(score=0.5, protocol={}, details={})})
        [('mig', 0.5)]
    """
    pairs = (pair for name, score in scores.items() for pair in split_values(name, score).items())
    return [(label, _finite(value)) for label, value in pairs]


def list_maps(
    scores: Mapping[str, Score], axes: Sequence[Axis], name_factors: Callable[[], Sequence[str]]
) -> list[HeatMap]:
    """Return the matrices of codes and factors that are among the scores.

    Args:
        scores: Scores by the name of the metric, as read from `scores.json`.
        axes: All axes of the model; they name the codes if they are as many.
        name_factors: Returns the names of the factors, called if there is a matrix; if they are not
            as many, factors are numbered.

    Raises:
        ValueError: If a detail is not a matrix, but should be.
    """
    found = []
    for suffix, (title, places) in product(("", FITTED), MAPS.values()):
        known = [(scores[m + suffix], key) for m, key in places if m + suffix in scores]
        matrices = (score.matrix(key) for score, key in known)
        if matrix := next(filter(None, matrices), None):
            found.append((f"{title}{suffix}", [list(map(_finite, row)) for row in matrix]))
    factors = name_factors() if found else ()
    maps = []
    for title, matrix in found:
        count = len(matrix[0])
        columns = factors if len(factors) == count else [f"factor {f}" for f in range(count)]
        maps.append(HeatMap(title, _name_codes(len(matrix), axes), columns, matrix))
    return maps


def _finite(value: float | None) -> float | None:
    """Return a number that JSON has; None for infinity."""
    return value if value is not None and isfinite(value) else None


def _name_codes(count: int, axes: Sequence[Axis]) -> list[str]:
    if len(axes) != count:
        return [f"code {k}" for k in range(count)]
    several = len({axis.group for axis in axes}) > 1
    return [f"{axis.group}, {axis.name}" if several else axis.name for axis in axes]
