"""Scores of a run at one training step, and how they were computed: `scores.json`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from disentangle.output.text import cut
from disentangle.runs.atomic import replace_text

FIT = "fit_encoder"  # name of the encoder's fit among the scores
FITTED = " (fitted encoder)"  # suffix of scores by that encoder
ALONG_SEFA = " (SeFa)"  # suffix of scores of the axes that SeFa finds
INFINITE = ("-Infinity", "Infinity")
MOST_NUMBERS = 2**20  # in an array that is stored: they take 20 bytes each
DEEPEST = 10  # levels of a file; details have two or three of their own


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score and how it was computed.

    Attributes:
        score: The number; None or NaN if it is undefined.
        seed: Seed of all random draws, if known.
        protocol: Options of the metric, and numbers of points or images.
        seconds: Duration, if known.
        versions: Versions of the libraries that computed it.
        details: Further fields of the metric's result.
        too_large: Shapes of the fields that are too large to be stored.

    Raises:
        ValueError: If a field is of another kind.
    """

    score: float | None
    seed: int | None = None
    protocol: Mapping[str, Any]
    seconds: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any]
    too_large: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("score", "seed", "seconds"):
            _check_number(name, getattr(self, name))
        for name in ("protocol", "versions", "details", "too_large"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must be a mapping, got {getattr(self, name)!r}")

    def number(self, name: str) -> float | None:
        """Return a detail that is a number; None if it is undefined.

        Raises:
            ValueError: If it is anything else.
        """
        return _check_number(name, self.details.get(name))

    def matrix(self, name: str) -> list[list[float | None]] | None:
        """Return the rows of a detail that is a matrix in the file; None if there is none.

        Raises:
            ValueError: If it is anything else.
        """
        rows = self.details.get(name)
        if rows is not None and not _is_matrix(rows):
            raise ValueError(f"{name} in scores.json must be a matrix, got {cut(repr(rows))}")
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, without optional ones that are unknown or empty."""
        required = {"score", "protocol", "details"}
        known = {key for key, value in vars(self).items() if value not in (None, {})}
        return {key: value for key, value in vars(self).items() if key in required | known}


@dataclass(frozen=True)
class ScoresFile:
    """Content of a `scores.json`.

    Attributes:
        step: Training step of the model that was scored; None for codes in a file.
        codes: Name and checksum of the file of codes; empty for a run.
        scores: Scores by the name of the metric, perhaps with `FITTED` or `ALONG_SEFA`.

    Raises:
        ValueError: If a field is of another kind.
    """

    step: int | None = None
    codes: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Score] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if type(self.step) not in (int, NoneType):
            raise ValueError(f"step must be an integer, got {self.step!r}")
        if not all(isinstance(text, str) for text in (*self.codes, *self.codes.values())):
            raise ValueError(f"codes must be a mapping to text, got {self.codes!r}")

    def at_step(self, step: int) -> "ScoresFile":
        """Return the scores of a training step, which are none if these are of another."""
        return self if self.step == step else ScoresFile(step)

    def updated(self, scores: Mapping[str, Score]) -> "ScoresFile":
        """Return these scores with new ones added or in their place.

        Where an encoder was fitted anew, in another way than before, the scores by the old one go.

        Examples:
            >>> low, high = (Score(score=x, protocol={}, details={}) for x in (0.1, 0.9))
            >>> found = ScoresFile(5, scores={"mig": low, "sap": low}).updated({"mig": high})
            >>> [(name, score.score) for name, score in found.scores.items()]
            [('mig', 0.9), ('sap', 0.1)]
        """
        kept = self.scores
        if FIT in scores and (FIT not in kept or _fit_of(kept[FIT]) != _fit_of(scores[FIT])):
            kept = {name: score for name, score in kept.items() if not name.endswith(FITTED)}
        return replace(self, scores={**kept, **scores})


def _fit_of(score: Score) -> tuple[Any, Any]:
    """Return everything that the fitted encoder depends on."""
    return score.seed, _plain(score.protocol)


def metric_of(name: str) -> str:
    """Return the name of the metric of a score.

    Examples:
        >>> metric_of("dci (fitted encoder)")
        'dci'
    """
    return name.partition(" (")[0]


def read_scores(file: Path) -> ScoresFile:
    """Read a `scores.json`; a number that is undefined is None.

    Raises:
        ValueError: If the file holds anything else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        _check_plain(content, DEEPEST)
        scores = {name: Score(**_read_infinity(entry)) for name, entry in content["scores"].items()}
        return ScoresFile(content.pop("step"), **{**content, "scores": scores})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is not what `disentangle evaluate` writes: remove it") from error


def write_scores(file: Path, content: ScoresFile) -> None:
    """Write a `scores.json`, whole or not at all."""
    codes = {"codes": content.codes} if content.codes else {}
    scores = {name: score.as_dict() for name, score in content.scores.items()}
    report = {"step": content.step, **codes, "scores": scores}
    replace_text(file, json.dumps(_plain(report), indent=1))


def split_details(details: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the details that are small enough to be stored, and the shapes of all other arrays.

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


def _refuse_constant(name: str) -> None:
    raise ValueError(f"numbers must be finite, got {name}")


def _check_plain(value: Any, levels: int) -> None:
    """Require what can be shown: no deep nesting, names on one line, numbers that floats can be.

    Raises:
        ValueError: If there is anything else.
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


def _check_number(name: str, value: Any) -> Any:
    """Return a number or None; raise `ValueError` for anything else."""
    if not _is_number(value):
        raise ValueError(f"{name} in scores.json must be a number, got {cut(repr(value))}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | None) and not isinstance(value, bool)


def _is_matrix(rows: Any) -> bool:
    """Return True for one or more rows of equally many numbers."""
    return (
        isinstance(rows, list)
        and all(isinstance(row, list) and row for row in rows)
        and len({len(row) for row in rows}) == 1
        and all(_is_number(value) for row in rows for value in row)
    )


def _plain(value: Any) -> Any:
    """Return arrays as lists, and NaN as null and infinity as text, for which JSON has no names."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return INFINITE[value > 0]
    return None if isinstance(value, float) and math.isnan(value) else value


def _read_infinity(entry: Any) -> Any:
    """Return an entry with infinity as a number in its score and details."""

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: read(item) for key, item in value.items()}
        if isinstance(value, list):
            return [read(item) for item in value]
        return float(value) if isinstance(value, str) and value in INFINITE else value

    return {**entry, "score": read(entry["score"]), "details": read(entry["details"])}
