"""`scores.json`: what was computed of a run at one training step, and how."""

import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from disentangle.training.run_folder import replace_text

FIT = "fit_encoder"  # how the fit of an encoder is named among the scores
FITTED = " (fitted encoder)"  # what it adds to the names of scores by that encoder
INFINITE = ("-Infinity", "Infinity")
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
        report = json.loads(file.read_text(encoding="utf-8"))
        valid = "step" in report
        for entry in report["scores"].values():
            entry |= {key: _read_infinity(entry[key]) for key in ("score", "details")}
            valid = valid and isinstance(entry["score"], float | int | None)
    except (ValueError, TypeError, KeyError, AttributeError):
        valid = False
    if not valid:
        raise ValueError(f"{file} is not what `disentangle evaluate` writes: remove it")
    return report


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
    return None if entry is None else (entry["seed"], _plain(entry["protocol"]))


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
