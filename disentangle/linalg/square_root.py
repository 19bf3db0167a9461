"""Square root and inverse square root of a covariance, by a method of choice."""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from disentangle.linalg.checks import check_covariance
from disentangle.linalg.eigen_root import eigen_root, pade_damping, taylor_damping
from disentangle.linalg.newton_schulz import default_iterations, newton_schulz_root
from disentangle.linalg.polynomial_root import pade_root, polynomial_root, taylor_root
from disentangle.linalg.primitives import are_finite, without_autocast

SquareRootMethod = Literal["auto", "eigh", "svd_pade", "svd_taylor", "newton_schulz", "mtp", "mpa"]
SQUARE_ROOT_METHODS: tuple[SquareRootMethod, ...] = get_args(SquareRootMethod)


def matrix_sqrt(
    covariance: Tensor, method: SquareRootMethod = "auto", *, iterations: int | None = None
) -> Tensor:
    """The square root `A^½`: symmetric, positive semi-definite, its square is `A`.

    | method | value | gradient |
    |---|---|---|
    | `eigh` | exact | exact, at equal eigenvalues too, and so are further derivatives |
    | `svd_pade` | exact | exact, but 0 from one eigenvector to another of the same eigenvalue |
    | `svd_taylor` | exact | from one eigenvector to another, short by `(λj/λi)^101`, `λj < λi` |
    | `newton_schulz` | after `iterations` steps | that of the value, and further derivatives |
    | `mtp` | Taylor polynomial of degree 10 | approximate, not that of the value |
    | `mpa` | `[5/5]` Padé approximant | approximate, not that of the value |

    `auto` is `eigh` on the CPU: as accurate as any at every condition number that the dtype
    resolves, 1e6 in float32, and faster with its gradient than the only other accurate method, by
    the tables of `tests/benchmarks/RESULTS.md`. On other devices it is `newton_schulz`, by argument
    and not by measurement: `eigh`, `svd_pade` and `svd_taylor` make the host wait for CUDA, the
    others are products of matrices (and a linear system in `mpa`) that do not. It bears no negative
    eigenvalue beyond rounding in the dtype: a covariance made in TF32 has some, and needs a
    multiple of the identity added.

    An eigenvalue `λ ≥ 5e-6 ‖A‖_F` is exact to rounding after the 19 iterations that `newton_schulz`
    takes by default in float32, `λ ≥ 2e-14 ‖A‖_F` after 44 in float64; below, its root comes out
    too small. Half takes 8 and bfloat16 5, as iSQRT-COV does in any dtype: an error of 1 % or more
    for `λ ≤ 0.006 ‖A‖_F` and `λ ≤ 0.07 ‖A‖_F`. With more, rounding that makes an eigenvalue
    negative can make the iteration diverge. The error is 1 % or more for `λ ≤ 0.17 ‖A‖_F` with
    `mtp`, whose root is at least `0.17 ‖A‖_F^½`, and for `λ ≤ 0.06 ‖A‖_F` with `mpa`, whose root is
    at least `0.09 ‖A‖_F^½`.

    Every method supports `torch.func.grad`, `vmap` and `jvp`. Forward mode applies the same map as
    the gradient, and is approximate where the gradient is.

    The symmetric part of `covariance` counts, and the gradient is symmetric. With `eigh` and
    `svd_*`, negative eigenvalues count as zero, and so do those that rounding can have made from
    zero, where `condition_number` is infinite: `λ ≤ eps(dtype) ‖A‖_F`, which is 1.2e-7 of the norm
    in float32 but 0.8 % of it in bfloat16. The root of zero has no derivative. The gradient is zero
    there from one null direction to another: for `A = X Xᵀ` none of it reaches `X`.

    Args:
        covariance: `(…, n, n)`, symmetric positive semi-definite, floating point. Half and bfloat16
            are computed in float32 at least, under autocast too.
        method: One of `SQUARE_ROOT_METHODS`.
        iterations: Iterations of `newton_schulz`, at least 1; by default as many as the dtype
            bears.

    Returns:
        `(…, n, n)`, in the dtype of `covariance`. Not a number throughout, and so its gradient,
        where a matrix of the batch has an entry that is not finite.

    Raises:
        ValueError: If `covariance` is not square, is empty or is not floating point; if `method` is
            unknown; if `iterations` is less than 1 or given for another method.
        RuntimeError: When a second derivative reaches `svd_*`, `mtp` or `mpa`.

    Examples:
        >>> matrix_sqrt(torch.tensor([[2.0, 0.0], [0.0, 9.0]]))
        tensor([[1.4142, 0.0000],
                [0.0000, 3.0000]])
    """
    return _root(covariance, method, iterations, inverse=False)


def matrix_inverse_sqrt(
    covariance: Tensor, method: SquareRootMethod = "auto", *, iterations: int | None = None
) -> Tensor:
    """The inverse square root `A^-½`, which whitens data of covariance `A`.

    Methods, precision and the treatment of asymmetry as in `matrix_sqrt`. `mtp` is the Taylor
    polynomial of the inverse root, with an error of 1 % or more for `λ ≤ 0.27 ‖A‖_F`; `mpa` is the
    reciprocal of the Padé approximant of the root.

    A singular matrix has none, and a whitening layer adds a multiple of the identity. Without it,
    `eigh` and `svd_*` return the pseudo-inverse root, zero on the null space: `A^-½ X` is then
    `polar_factor(X)` for `A = X Xᵀ`. The other methods return large finite values there,
    `1.5^iterations`, 3.7 (`mtp`) or 11 (`mpa`) times `‖A‖_F^-½`, and infinity and not-a-number for
    the zero matrix. Nothing is raised; `condition_number` is infinite in these cases.

    Args:
        covariance: `(…, n, n)`, symmetric positive definite, floating point. Half and bfloat16
            are computed in float32 at least, under autocast too.
        method: One of `SQUARE_ROOT_METHODS`.
        iterations: Iterations of `newton_schulz`, at least 1; by default as many as the dtype
            bears.

    Returns:
        `(…, n, n)`, in the dtype of `covariance`. Not a number throughout, and so its gradient,
        where a matrix of the batch has an entry that is not finite.

    Raises:
        ValueError: As `matrix_sqrt`.
        RuntimeError: As `matrix_sqrt`.

    Examples:
        >>> matrix_inverse_sqrt(torch.tensor([[4.0, 0.0], [0.0, 16.0]]))
        tensor([[0.5000, 0.0000],
                [0.0000, 0.2500]])
    """
    return _root(covariance, method, iterations, inverse=True)


def _root(
    covariance: Tensor, method: SquareRootMethod, iterations: int | None, inverse: bool
) -> Tensor:
    check_covariance(covariance)
    _check_method(method, iterations)
    A = _symmetric_part(covariance.to(torch.promote_types(covariance.dtype, torch.float32)))
    solve = _solver(_resolve(method, A), iterations, covariance.dtype)
    with without_autocast(A):
        root = _symmetric_part(solve(A, inverse))
    # An iteration that is cut short need not spread one bad entry over its matrix.
    return torch.where(are_finite(A), root, torch.nan).to(covariance.dtype)


def _symmetric_part(matrix: Tensor) -> Tensor:
    # Halved first: the sum may overflow.
    return 0.5 * matrix + 0.5 * matrix.mT


def _check_method(method: SquareRootMethod, iterations: int | None) -> None:
    if method not in SQUARE_ROOT_METHODS:
        raise ValueError(f"method must be one of {', '.join(SQUARE_ROOT_METHODS)}, got {method!r}")
    if iterations is None:
        return
    if method != "newton_schulz":
        raise ValueError(f"iterations belongs to method 'newton_schulz', got method {method!r}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")


def _resolve(method: SquareRootMethod, A: Tensor) -> SquareRootMethod:
    if method != "auto":
        return method
    return "eigh" if A.device.type == "cpu" else "newton_schulz"


def _solver(
    method: SquareRootMethod, iterations: int | None, dtype: torch.dtype
) -> Callable[[Tensor, bool], Tensor]:
    """From a symmetric matrix, and whether its inverse root is asked for, to the root."""
    count = default_iterations(dtype) if iterations is None else iterations
    solvers: dict[str, Callable[[Tensor, bool], Tensor]] = {
        "eigh": partial(eigen_root, dtype=dtype),
        "svd_pade": partial(eigen_root, dtype=dtype, damping=pade_damping),
        "svd_taylor": partial(eigen_root, dtype=dtype, damping=taylor_damping),
        "newton_schulz": partial(newton_schulz_root, iterations=count),
        "mtp": partial(polynomial_root, approximation=taylor_root),
        "mpa": partial(polynomial_root, approximation=pade_root),
    }
    return solvers[method]
