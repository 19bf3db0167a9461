"""What every metric asks of its arguments, checked in one place."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor, bfloat16

Array = np.ndarray | Tensor


def as_codes(codes: Array, *, points: int | None = None) -> np.ndarray:
    """Codes as a floating-point array.

    Single and double precision are kept, because bin edges are rounded to the precision of the
    codes in the published protocols; other types become float64, bfloat16 float32.

    Args:
        codes: Shape `(N, K)`, at least one code.
        points: The number `N` that is expected, if any.

    Raises:
        ValueError: If the shape is another one, or an entry is NaN or infinite.

    Examples:
        >>> as_codes(np.array([[1, 2]])).dtype
        dtype('float64')
    """
    array = _as_array(codes)
    rows = "N" if points is None else points
    if array.ndim != 2 or array.shape[1] == 0 or points not in (None, len(array)):
        raise ValueError(f"codes must have the shape ({rows}, K) with K ≥ 1, got {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"codes must be real numbers, got {array.dtype}")
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        raise ValueError(f"codes must be finite, got {bad} NaN or infinite of {array.size}")
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def as_factors(factors: Array) -> np.ndarray:
    """Ground-truth factors as an int64 array.

    Args:
        factors: Integers of shape `(N, F)`, at least one factor.

    Raises:
        ValueError: If the shape is another one or the type no integer one.

    Examples:
        >>> as_factors(np.array([[0], [1]], dtype=np.uint8)).dtype
        dtype('int64')
    """
    array = _as_array(factors)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"factors must have the shape (N, F) with F ≥ 1, got {array.shape}")
    if array.dtype.kind not in "iub":
        raise ValueError(f"factors must be integers, got {array.dtype}")
    return array.astype(np.int64)


def as_codes_and_factors(
    codes: Array, factors: Array, *, minimum: int
) -> tuple[np.ndarray, np.ndarray]:
    """The codes `(N, K)` and factors `(N, F)` of the same `N ≥ minimum` points.

    Raises:
        ValueError: As `as_codes` and `as_factors`, and if the numbers of points differ or are
            fewer than `minimum`.
    """
    codes, factors = as_codes(codes), as_factors(factors)
    if len(codes) != len(factors):
        raise ValueError(
            f"codes and factors must have the same number of points, got {len(codes)} codes "
            f"and {len(factors)} factors"
        )
    if len(codes) < minimum:
        raise ValueError(f"at least {minimum} points are needed, got {len(codes)}")
    return codes, factors


def find_varying(distinct_values: Sequence[int] | np.ndarray) -> np.ndarray:
    """Which factors take two values or more: nothing can be said about the others.

    Args:
        distinct_values: How many values each of the `F` factors takes.

    Returns:
        A Boolean array `(F,)`.

    Raises:
        ValueError: If no factor does, or a number is not positive.

    Examples:
        >>> find_varying([3, 1, 40])
        array([ True, False,  True])
    """
    sizes = np.asarray(distinct_values)
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or (sizes < 1).any():
        raise ValueError(f"factor sizes must be positive integers, got {distinct_values}")
    if not (sizes > 1).any():
        raise ValueError(f"at least one factor must take two values or more, got {sizes.tolist()}")
    return sizes > 1


def check_at_least(minimum: int, **counts: int) -> None:
    """Raises a `ValueError` that names the first of `counts` that is below `minimum`."""
    for name, count in counts.items():
        if count < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {count}")


def represent_points(represent: Callable[[np.ndarray], Array], factors: np.ndarray) -> np.ndarray:
    """The checked codes `(N, K)` that the caller's function gives for factors `(N, F)`."""
    return as_codes(represent(factors), points=len(factors))


def _as_array(values: Array) -> np.ndarray:
    if isinstance(values, Tensor):
        # NumPy has no bfloat16
        values = (values.float() if values.dtype == bfloat16 else values).detach().cpu().numpy()
    return np.asarray(values)
