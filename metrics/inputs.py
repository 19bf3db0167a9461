"""Checks of the arguments of metrics."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from torch import Tensor, bfloat16

from disentangle.linalg.checks import check_dense

Array = np.ndarray | Tensor
EXACT = 2**53  # up to which double precision holds every integer
LARGEST = 1e75  # whose fourth power, and that of its reciprocal, is a number in double precision


def as_numbers(name: str, values: ArrayLike | Tensor, *, integers: bool = False) -> np.ndarray:
    """Real numbers as a NumPy array of their own type; bfloat16, which NumPy lacks, as float32.

    Args:
        name: Name of the argument, for messages.
        values: Array, tensor or nested lists, of any shape.
        integers: Whether to accept integers only.

    Raises:
        ValueError: If an entry is masked or no real number (integer), if an unsigned one does not
            fit into int64, or if the array is sparse, quantised or the like, see `check_dense`.

    Examples:
        >>> as_numbers("codes", np.ma.array([1, 2], mask=[False, True]))
        Traceback (most recent call last):
        ValueError: codes must have a value in every entry, got a masked one
    """
    array = _as_array(name, values)
    if array.dtype.kind not in ("iub" if integers else "fiub"):
        kind = "integers" if integers else "real numbers"
        raise ValueError(f"{name} must be {kind}, got {array.dtype}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must fit into int64, got {array.max()}")
    return array


def as_floating(name: str, array: np.ndarray) -> np.ndarray:
    """Real numbers in single or double precision; other types become float64.

    Raises:
        ValueError: If a number is NaN or infinite, or an integer that float64 does not hold.
    """
    if array.dtype.kind in "iu" and array.size:
        largest = max(-int(array.min()), int(array.max()))
        if largest > EXACT:
            raise ValueError(
                f"{name} must be at most 2^53 in size, up to which double precision holds every "
                f"integer, got {largest}"
            )
    if array.dtype not in (np.float32, np.float64):
        with np.errstate(over="ignore"):  # of extended precision: found below
            array = array.astype(np.float64)
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite of {array.size}")
    return array


def check_real(name: str, tensor: Tensor) -> None:
    """Raise `ValueError` as `check_dense`, and unless the entries of a tensor are real numbers."""
    check_dense(name, tensor)
    if tensor.is_complex():
        raise ValueError(f"{name} must be real numbers, got {tensor.dtype}")


def _as_array(name: str, values: ArrayLike | Tensor) -> np.ndarray:
    if isinstance(values, Tensor):
        check_real(name, values)
        values = (values.float() if values.dtype == bfloat16 else values).detach().cpu()
        values = values.resolve_neg()
    if _is_masked(values):
        raise ValueError(f"{name} must have a value in every entry, got a masked one")
    if issparse(values):
        raise ValueError(f"{name} must be dense, got a sparse {type(values).__name__}")
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        kind, reason = type(values).__name__, " ".join(str(error).split())
        raise ValueError(f"{name} must be an array of numbers, got {kind}: {reason}") from error


def _is_masked(values: object) -> bool:
    """Return whether an array, or one in nested lists, has a masked entry."""
    if isinstance(values, list | tuple):
        return any(map(_is_masked, values))
    return np.ma.is_masked(values)


def as_codes(codes: Array, *, points: int | None = None) -> np.ndarray:
    """Codes as a floating-point array.

    Single and double precision are kept, because bin edges are rounded to the precision of the
    codes in the published protocols; other types become float64, bfloat16 float32.

    Args:
        codes: Shape `(N, K)`, at least one code.
        points: The number `N` that is expected, if any.

    Raises:
        ValueError: As `as_numbers` and `as_floating`, if the shape is another one, or the codes are
            so large or vary by so little that their variance is no number.

    Examples:
        >>> as_codes(np.array([[1, 2]])).dtype
        dtype('float64')
    """
    array = as_numbers("codes", codes)
    rows = "N" if points is None else points
    if array.ndim != 2 or array.shape[1] == 0 or points not in (None, len(array)):
        raise ValueError(f"codes must have the shape ({rows}, K) with K ≥ 1, got {array.shape}")
    array = as_floating("codes", array)
    _check_squares("codes", array)
    return array


def _check_squares(name: str, values: np.ndarray) -> None:
    """Raises `ValueError` if variances of finite numbers `(N, K)` would be infinite or vanish."""
    if not values.size:
        return
    low, high = (edge.astype(np.float64) for edge in (values.min(axis=0), values.max(axis=0)))
    largest, ranges = max(-low.min(), high.max()), high - low
    limit = min(LARGEST, float(np.finfo(values.dtype).max) / 4)  # ranges are numbers too
    if largest > limit or (ranges[ranges > 0] < 1 / LARGEST).any():
        raise ValueError(
            f"{name} must be at most {limit:.2g} in size and vary by {1 / LARGEST:g} or not at "
            f"all, so that their squares are numbers, got sizes up to {largest:.3g} and ranges "
            f"from {ranges.min():.3g} to {ranges.max():.3g}: scale them"
        )


def as_factors(factors: Array, *, real: bool = False) -> np.ndarray:
    """Ground-truth factors as an int64 array.

    Args:
        factors: Integers of shape `(N, F)`, at least one factor.
        real: Whether real numbers are taken too; the array then is float64.

    Raises:
        ValueError: As `as_numbers`, for real numbers also as `as_floating` or if they are so large
            or alike that their variance is no number; and if the shape is another one.

    Examples:
        >>> as_factors(np.array([[0], [1]], dtype=np.uint8)).dtype
        dtype('int64')
    """
    array = as_numbers("factors", factors, integers=not real)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"factors must have the shape (N, F) with F ≥ 1, got {array.shape}")
    if not real:
        return array.astype(np.int64)
    array = as_floating("factors", array).astype(np.float64)
    _check_squares("factors", array)
    return array


def as_codes_and_factors(
    codes: Array, factors: Array, *, minimum: int, real_factors: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The codes `(N, K)` and factors `(N, F)` of the same `N ≥ minimum` points.

    Raises:
        ValueError: As `as_codes` and `as_factors`, and if the numbers of points differ or are
            fewer than `minimum`.
    """
    codes, factors = as_codes(codes), as_factors(factors, real=real_factors)
    if len(codes) != len(factors):
        raise ValueError(
            f"codes and factors must have the same number of points, got {len(codes)} codes "
            f"and {len(factors)} factors"
        )
    if len(codes) < minimum:
        raise ValueError(f"at least {minimum} points are needed, got {len(codes)}")
    return codes, factors


def as_test_split(
    codes: Array, factors: Array, *, like: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The checked test codes `(M, K)` and test factors `(M, F)`, `M ≥ 1`.

    Args:
        codes: Shape `(M, K)`.
        factors: Integers of shape `(M, F)`.
        like: The checked training codes `(N, K)` and factors `(N, F)`.

    Raises:
        ValueError: As `as_codes_and_factors`, and if `K` or `F` is another one than in training.
    """
    codes, factors = as_codes_and_factors(codes, factors, minimum=1)
    for name, test, train in zip(("codes", "factors"), (codes, factors), like, strict=True):
        if test.shape[1] != train.shape[1]:
            raise ValueError(
                f"training and test {name} must have the same number of columns, "
                f"got {train.shape[1]} and {test.shape[1]}"
            )
    return codes, factors


def find_varying(distinct_values: Sequence[int] | np.ndarray, *, minimum: int = 1) -> np.ndarray:
    """Find the factors that take two values or more: no metric is defined for the others.

    Args:
        distinct_values: How many values each of the `F` factors takes.
        minimum: How many factors must vary.

    Returns:
        A Boolean array `(F,)`.

    Raises:
        ValueError: If fewer factors than `minimum` do, or a number is not positive.

    Examples:
        >>> find_varying([3, 1, 40])
        array([ True, False,  True])
    """
    sizes = as_numbers("factor sizes", distinct_values)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or (sizes < 1).any():
        raise ValueError(f"factor sizes must be positive integers, got {distinct_values}")
    if (sizes > 1).sum() < minimum:
        needed = "one factor" if minimum == 1 else f"{minimum} factors"
        raise ValueError(f"at least {needed} must take two values or more, got {sizes.tolist()}")
    return sizes > 1


def check_at_least(minimum: int, **counts: int) -> None:
    """Raises a `ValueError` that names the first of `counts` that is below `minimum`."""
    for name, count in counts.items():
        if count < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {count}")


def represent_points(represent: Callable[[np.ndarray], Array], factors: np.ndarray) -> np.ndarray:
    """The checked codes `(N, K)` that the caller's function gives for factors `(N, F)`."""
    return as_codes(represent(factors), points=len(factors))
