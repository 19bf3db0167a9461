"""The scores of a run and the heat maps behind them, for a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from disentangle.evaluation.heat_maps import MAPS
from disentangle.evaluation.scores_file import FITTED
from disentangle.evaluation.summary import split_values
from disentangle.explorer.page import HeatMap
from disentangle.models import Axis


def list_scores(scores: Mapping[str, Any]) -> list[tuple[str, float | None]]:
    """The numbers that tables show, by what they are called there.

    Args:
        scores: By the metric's name, as `scores.json` holds them.

    Examples:
        >>> list_scores({"mig": {"score": 0.5, "details": {}}})
        [('mig', 0.5)]
    """
    return [
        (label, value)
        for name, entry in scores.items()
        for label, value in split_values(name, entry).items()
        if value is None or isinstance(value, int | float)
    ]


def list_maps(
    scores: Mapping[str, Any], axes: Sequence[Axis], name_factors: Callable[[], Sequence[str]]
) -> list[HeatMap]:
    """The matrices of codes and factors that are among the scores.

    Args:
        scores: By the metric's name, as `scores.json` holds them.
        axes: All of the model; they name the codes if they are as many.
        name_factors: Gives the names of the factors, if there is a matrix; other factors than the
            matrix has are numbered.
    """
    details = {name: entry["details"] for name, entry in scores.items()}
    found = [
        (f"{title}{suffix}", details[metric + suffix][key])
        for suffix in ("", FITTED)
        for title, places in MAPS.values()
        for metric, key in [(m, k) for m, k in places if k in details.get(m + suffix, ())][:1]
    ]
    factors = name_factors() if found else ()
    maps = []
    for title, matrix in found:
        count = len(matrix[0])
        columns = factors if len(factors) == count else [f"factor {f}" for f in range(count)]
        maps.append(HeatMap(title, _name_codes(len(matrix), axes), columns, matrix))
    return maps


def _name_codes(count: int, axes: Sequence[Axis]) -> list[str]:
    if len(axes) != count:
        return [f"code {k}" for k in range(count)]
    several = len({axis.group for axis in axes}) > 1
    return [f"{axis.group}, {axis.name}" if several else axis.name for axis in axes]
