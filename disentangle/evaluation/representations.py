"""Codes of points with known factors, from a file, as a target of metrics."""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from disentangle.data.ground_truth.npz import read_plain_array
from disentangle.data.official import refuse_broken
from disentangle.evaluation.progress import Progress
from disentangle.evaluation.request import Draws
from disentangle.metrics.inputs import as_codes_and_factors, as_test_split

REQUIRED, OPTIONAL = ("codes", "factors"), ("test_codes", "test_factors", "factor_names")
LIMIT = 2**28  # bytes of an array: 33 million numbers


@dataclass(frozen=True, eq=False)
class Points:
    """Codes, and the factors behind them if they are known.

    Attributes:
        codes: Codes of `N` training points, shape `(N, K)`.
        factors: Their factors, shape `(N, F)`; None if there is no ground truth.
        test_codes: Codes of `M` other points, shape `(M, K)`; None if there are none.
        test_factors: Factors of these, shape `(M, F)`; None if there are none.
        code_names: `K` names.
        factor_names: `F` names, empty without factors.
        divergences: Mean over the training points of the divergence of each code's posterior from
            the prior, shape `(K,)`, in nats; None if there is no posterior.
        drawn_from: Number of training points that these are a random subset of; None for all.
        source: Path of their file and its SHA-256 checksum, empty if they are from no file.
    """

    codes: np.ndarray
    factors: np.ndarray | None
    test_codes: np.ndarray | None
    test_factors: np.ndarray | None
    code_names: tuple[str, ...]
    factor_names: tuple[str, ...]
    divergences: np.ndarray | None = None
    drawn_from: int | None = None
    source: Mapping[str, str] = field(default_factory=dict)


def read_points(path: str | Path) -> Points:
    """Read the arrays of a `.npz` file: `codes`, `factors`, and optionally a test split and names.

    Args:
        path: A file as `numpy.savez` writes it, with `codes` `(N, K)`, `factors` `(N, F)`, and
            optionally `test_codes` `(M, K)` with `test_factors` `(M, F)`, and `factor_names`
            `(F,)`. Python objects in it are refused, never unpickled. `numpy.savez` writes a
            masked array without its mask: leave out masked points before saving.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another kind of file, or its arrays do not fit together.
    """
    arrays = _read_arrays(Path(path))
    with open(path, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        return replace(_check_arrays(arrays), source={"file": str(path), "sha256": checksum})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def draw_points(points: Points, count: int | None, test_count: int | None, *, seed: int) -> Points:
    """Return random points of a file, without replacement and in their order.

    Args:
        points: All points.
        count: Number of training points to draw; None keeps all.
        test_count: Number of test points to draw; None keeps all.
        seed: Seed of the draw.

    Raises:
        ValueError: If there are fewer points, or none to test on.
    """
    if test_count is not None and points.test_codes is None:
        raise ValueError("--test_points needs the arrays test_codes and test_factors")
    rng = np.random.default_rng(seed)
    codes, factors = _draw_rows("points", count, rng, points.codes, points.factors)
    test_codes, test_factors = _draw_rows(
        "test_points", test_count, rng, points.test_codes, points.test_factors
    )
    return replace(
        points,
        codes=codes,
        factors=factors,
        test_codes=test_codes,
        test_factors=test_factors,
        drawn_from=None if count is None else len(points.codes),
    )


def _draw_rows(
    name: str, count: int | None, rng: np.random.Generator, *arrays: Any
) -> tuple[Any, ...]:
    """Return the same rows of each array."""
    if count is None:
        return arrays
    total = len(arrays[0])
    if not 1 <= count <= total:
        raise ValueError(f"--{name} must be from 1 to {total}, all that there are, got {count}")
    rows = np.sort(rng.choice(total, count, replace=False))
    return tuple(array[rows] for array in arrays)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of codes {path}")
    with refuse_broken(path, "an .npz file of plain arrays"), zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
        known = sorted(names.intersection(REQUIRED + OPTIONAL))
        arrays = {name: read_plain_array(archive, name, LIMIT) for name in known}
    _check_names(path, names)
    return arrays


def _check_names(path: Path, names: Set[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    unknown = sorted(names - {*REQUIRED, *OPTIONAL})
    if missing or unknown:
        wrong = f"lacks {missing[0]}" if missing else f"has an unknown array {unknown[0]}"
        known = f"{', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}"
        raise ValueError(f"{path} {wrong}; it must hold the arrays {known}")
    if ("test_codes" in names) != ("test_factors" in names):
        raise ValueError(f"{path} must hold both test_codes and test_factors or neither")


def _check_arrays(arrays: Mapping[str, np.ndarray]) -> Points:
    train = as_codes_and_factors(arrays["codes"], arrays["factors"], minimum=2)
    test: tuple[np.ndarray, np.ndarray] | tuple[None, None] = (None, None)
    if "test_codes" in arrays:
        try:
            test = as_test_split(arrays["test_codes"], arrays["test_factors"], like=train)
        except ValueError as error:
            raise ValueError(f"the test split: {error}") from error
    count = train[1].shape[1]
    names = arrays.get("factor_names", np.array([f"factor {f}" for f in range(count)]))
    if names.shape != (count,) or names.dtype.kind != "U":
        raise ValueError(
            f"factor_names must be {count} strings, got {names.dtype} of shape {names.shape}"
        )
    return Points(*train, test[0], test[1], name_codes(train[0]), tuple(names.tolist()))


def name_codes(codes: np.ndarray) -> tuple[str, ...]:
    """Return names for the columns of codes `(N, K)` that have none of their own."""
    return tuple(f"code {k}" for k in range(codes.shape[1]))


class Target:
    """Codes to score, from anywhere; base class of targets that offer more to metrics.

    Args:
        name: Name in tables and messages.
        points: Codes and factors.
        draws: Numbers of random draws, and their seed.
        progress: Progress bars.

    Attributes:
        offers: Kinds of input that a metric can have, keys of `NEEDS` in `evaluation.inputs`.
        peers: Targets with the same points, itself included, for metrics of several runs.
        across_settings: Whether the peers may differ in more than their seed.
        suffixes: Suffixes of the names of scores that need a kind of input, if it is not from the
            model's own encoder or axes.
    """

    suffixes: Mapping[str, str] = {}
    across_settings = False

    def __init__(self, name: str, points: Points, draws: Draws, progress: Progress) -> None:
        self.name, self.draws, self.progress = name, draws, progress
        self.points = points
        self.peers: Sequence[Target] = (self,)
        self.offers = {"codes", "factors"}
        if points.test_codes is not None:
            self.offers.add("test split")

    @property
    def point_count(self) -> int:
        """Number of training points."""
        return len(self.points.codes)
