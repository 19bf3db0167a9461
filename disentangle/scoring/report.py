"""`scores.json`: what was computed of a run at one training step, and how."""

import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from disentangle.training.run_folder import replace_text

LIBRARIES = ("disentangle", "torch", "numpy", "scipy", "scikit-learn")


def library_versions() -> dict[str, str]:
    """The versions of what scores are computed with."""
    return {name: version(name) for name in LIBRARIES}


def read_report(file: Path) -> dict[str, Any]:
    """The content of a `scores.json`: `step` and, by the metric's name, `scores`.

    Raises:
        ValueError: If the file is not there or holds something else.
    """
    if not file.is_file():
        raise ValueError(f"{file.parent} has no {file.name}: run `disentangle evaluate` first")
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        valid = isinstance(report["scores"], dict) and "step" in report
        valid = valid and all("score" in entry for entry in report["scores"].values())
    except (ValueError, TypeError, KeyError):
        valid = False
    if not valid:
        raise ValueError(f"{file} is not what `disentangle evaluate` writes: remove it")
    return report


def merge_report(
    old: Mapping[str, Any] | None, step: int | None, scores: Mapping[str, Any]
) -> dict[str, Any]:
    """New scores, and old ones of other metrics at the same training step.

    Args:
        old: What `scores.json` holds, if there is one.
        step: The training step of the new scores.
        scores: By the metric's name.

    Examples:
        >>> old = {"step": 5, "scores": {"mig": 0.1, "sap": 0.2}}
        >>> merge_report(old, 5, {"mig": 0.3})["scores"]
        {'mig': 0.3, 'sap': 0.2}
        >>> merge_report(old, 6, {"mig": 0.3})["scores"]
        {'mig': 0.3}
    """
    kept = old["scores"] if old is not None and old["step"] == step else {}
    return {"step": step, "scores": {**kept, **scores}}


def write_report(file: Path, report: Mapping[str, Any]) -> None:
    """Writes a report, whole or not at all."""
    replace_text(file, json.dumps(_plain(report), indent=1))


def _plain(value: Any) -> Any:
    """Arrays as lists, for JSON, which has no name for NaN or infinity."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
