"""`scores.json`: what was computed of a run at one training step, and how."""

import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from disentangle.evaluation.heat_maps import MAPS
from disentangle.evaluation.registry import METRICS
from disentangle.runs.atomic import replace_text

FIT = "fit_encoder"  # how the fit of an encoder is named among the scores
FITTED = " (fitted encoder)"  # what it adds to the names of scores by that encoder
ALONG_SEFA = " (SeFa)"  # and of scores of the axes that SeFa finds
INFINITE = ("-Infinity", "Infinity")
MOST_NUMBERS = 2**20  # of an array that is stored: they take 20 bytes each
DEEPEST = 10  # levels of a report; details have two or three of their own
# Of codes and factors, which pictures show: the metrics and how their details call them.
MATRICES = [place for _, places in MAPS.values() for place in places]
LIBRARIES = ("disentangle", "torch", "numpy", "scipy", "scikit-learn")


def library_versions() -> dict[str, str]:
    """The versions of what scores are computed with."""
    return {name: version(name) for name in LIBRARIES}


def read_report(file: Path) -> dict[str, Any]:
    """The content of a `scores.json`: `step` and, by the metric's name, `scores`.

    A number that is not defined is None.

    Raises:
        ValueError: If the file is not there or holds something else.
    """
    if not file.is_file():
        raise ValueError(f"{file.parent} has no {file.name}: run `disentangle evaluate` first")
    try:
        report = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        _check_plain(report, DEEPEST)
        for entry in report["scores"].values():
            entry |= {key: _read_infinity(entry[key]) for key in ("score", "details")}
        valid = _is_report(report)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        valid = False
    if not valid:
        raise ValueError(f"{file} is not what `disentangle evaluate` writes: remove it")
    return report


def _refuse_constant(name: str) -> None:
    raise ValueError(f"numbers must be finite, got {name}")


def _check_plain(value: Any, levels: int) -> None:
    """Requires what can be shown: no deep nesting, names of a line, numbers that floats can be.

    Raises:
        ValueError: If there is something else.
    """
    if levels < 0:
        raise ValueError(f"it must not be nested more than {DEEPEST} deep")
    if isinstance(value, dict):
        if not all(name.isprintable() for name in value):
            raise ValueError("names must be of characters that can be printed")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _check_plain(item, levels - 1)
    elif isinstance(value, str):
        value.encode("utf-8")  # JSON can hold halves of characters
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("integers must have 64 bits at most")


def _is_report(report: Mapping[str, Any]) -> bool:
    """Whether every part of a report is of its kind."""
    codes = report.get("codes", {})
    return (
        (report["step"] is None or type(report["step"]) is int)
        and isinstance(codes, dict)
        and all(isinstance(value, str) for value in codes.values())
        and all(_is_entry(name, entry) for name, entry in report["scores"].items())
    )


def _is_entry(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a score, and what tables and pictures show of its details, are of their kinds."""
    metric, details = name.partition(" (")[0], entry["details"]
    shown = METRICS[metric].values if metric in METRICS else ()
    matrices = [details[key] for place, key in MATRICES if place == metric and key in details]
    return (
        isinstance(details, dict)
        and isinstance(entry["protocol"], dict)
        and all(_is_number(value) for value in (entry["score"], *(details[k] for k in shown)))
        and all(_is_matrix(matrix) for matrix in matrices)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int | None) and not isinstance(value, bool)


def _is_matrix(rows: Any) -> bool:
    """Whether these are rows of as many numbers each, and not none."""
    return (
        isinstance(rows, list)
        and all(isinstance(row, list) and all(map(_is_number, row)) for row in rows)
        and len({len(row) for row in rows}) == 1
        and len(rows[0]) > 0
    )


def merge_report(
    old: Mapping[str, Any] | None,
    step: int | None,
    scores: Mapping[str, Any],
    codes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """New scores, and old ones of other metrics at the same training step.

    Where an encoder was fitted anew, in another way than before, the scores by the old one go.

    Args:
        old: What `scores.json` holds, if there is one.
        step: The training step of the new scores.
        scores: By the metric's name.
        codes: What tells the file of codes from others, in place of a run.

    Examples:
        >>> old = {"step": 5, "scores": {"mig": 0.1, "sap": 0.2}}
        >>> merge_report(old, 5, {"mig": 0.3})["scores"]
        {'mig': 0.3, 'sap': 0.2}
        >>> merge_report(old, 6, {"mig": 0.3})["scores"]
        {'mig': 0.3}
    """
    kept = old["scores"] if old is not None and old["step"] == step else {}
    if FIT in scores and _fit_of(kept.get(FIT)) != _fit_of(scores[FIT]):
        kept = {name: entry for name, entry in kept.items() if not name.endswith(FITTED)}
    source = {} if codes is None else {"codes": dict(codes)}
    return {"step": step, **source, "scores": {**kept, **scores}}


def _fit_of(entry: Mapping[str, Any] | None) -> tuple[Any, Any] | None:
    """What decides about the encoder that was fitted."""
    return None if entry is None else (entry.get("seed"), _plain(entry["protocol"]))


def split_details(details: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Details that are small enough to be stored, and the shapes of the arrays that are not.

    Examples:
        >>> split_details({"gaps": np.zeros(3), "similarity": np.zeros((2, 2, 1_000, 1_000))})
        ({'gaps': array([0., 0., 0.])}, {'similarity': [2, 2, 1000, 1000]})
    """
    shapes = {
        name: list(value.shape)
        for name, value in details.items()
        if isinstance(value, np.ndarray) and value.size > MOST_NUMBERS
    }
    return {name: value for name, value in details.items() if name not in shapes}, shapes


def write_report(file: Path, report: Mapping[str, Any]) -> None:
    """Writes a report, whole or not at all."""
    replace_text(file, json.dumps(_plain(report), indent=1))


def _plain(value: Any) -> Any:
    """Arrays as lists; NaN as null and infinity as a string, for which JSON has no names."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return INFINITE[value > 0]
    return None if isinstance(value, float) and math.isnan(value) else value


def _read_infinity(value: Any) -> Any:
    """The numbers of a score with infinity as one of them."""
    if isinstance(value, dict):
        return {key: _read_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read_infinity(item) for item in value]
    return float(value) if isinstance(value, str) and value in INFINITE else value
