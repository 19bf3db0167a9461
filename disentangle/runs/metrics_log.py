"""The log of a run, `metrics.jsonl`: one line of JSON for each logged step."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from disentangle.runs.atomic import replace_text


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl`, without any torn by a crash or a run in progress.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    lines = map(_parse, file.read_text(encoding="utf-8", errors="replace").splitlines())
    return [line for line in lines if line is not None]


def drop_lines_after(file: Path, step: int) -> None:
    """Remove the lines of steps that a resumed run will make, and write, again."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    kept = [line for line in text.splitlines(keepends=True) if _step_of(line) <= step]
    replace_text(file, "".join(kept))


def _step_of(line: str) -> float:
    """Return the step of a line; infinity for one that is torn."""
    parsed = _parse(line)
    return math.inf if parsed is None else parsed["step"]


def _parse(line: str) -> dict[str, Any] | None:
    """Parse a line; return `None` for one that is torn."""
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) and _is_line(parsed) else None


def _is_line(parsed: dict[str, Any]) -> bool:
    """Return True for a line with a step and, besides, nothing but numbers and null."""
    integers = [value for value in parsed.values() if type(value) is int]
    others = {type(value) for value in parsed.values()} - {int, float, NoneType}
    whole = not others and all(abs(value) < 2**63 for value in integers)
    return whole and type(step := parsed.get("step")) is int and step >= 0


def _append_lines(file: Path, lines: dict[int, dict[str, float]]) -> None:
    """Appends a line for each step; a number that is not finite, which JSON lacks, as null."""
    with file.open("a", encoding="utf-8") as stream:
        for step, line in lines.items():
            row = {key: value if math.isfinite(value) else None for key, value in line.items()}
            stream.write(json.dumps({"step": step, **row}) + "\n")


def collect_values(
    lines: Iterable[Mapping[str, Any]], name_of: Callable[[str], str | None]
) -> dict[str, dict[int, float]]:
    """Return some values of a log by step; NaN where they were not finite.

    Args:
        lines: Lines of `metrics.jsonl`.
        name_of: Returns the name of a value for its name in the log; `None` leaves it out.

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


PREFIX = "activeness"


def activeness_name(group: str) -> str:
    """Return the name of the activeness of a subspace in logs.

    Examples:
        >>> activeness_name("block 1")
        'activeness/block 1'
    """
    return f"{PREFIX}/{group}"


def split_activeness_name(name: str) -> str | None:
    """Return the subspace of the name of an activeness; `None` for another name.

    Examples:
        >>> split_activeness_name("activeness/block 1")
        'block 1'
        >>> split_activeness_name("loss/generator")
    """
    prefix, _, group = name.partition("/")
    return group if prefix == PREFIX and group else None
