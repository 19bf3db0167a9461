"""The log of a run, value by value."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from disentangle.runs.run_folder import RunFolder
from disentangle.training.logs import read_lines


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` of a run.

    Raises:
        ValueError: If it has none.
    """
    if not folder.metrics.is_file():
        raise ValueError(f"{folder.path} has no {folder.metrics.name}: it has not been trained")
    return read_lines(folder.metrics)


def collect_values(
    lines: Iterable[Mapping[str, Any]], name_of: Callable[[str], str | None]
) -> dict[str, dict[int, float]]:
    """Some of what a run logged, by step; not a number where it was not finite.

    Args:
        lines: Of `metrics.jsonl`.
        name_of: What a value is called, of what it is called in the log; `None` leaves it out.

    Examples:
        >>> lines = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": None}]
        >>> collect_values(lines, lambda name: name if name == "loss" else None)
        {'loss': {10: 2.0, 20: nan}}
    """
    values: dict[str, dict[int, float]] = {}
    for line in lines:
        for key, value in line.items():
            if (name := name_of(key)) is not None:
                values.setdefault(name, {})[line["step"]] = np.nan if value is None else value
    return values
