"""The Gram matrix of a wide matrix and its root: what the polar factor is made of.

A wide matrix has few rows `q` and many columns `n`. Everything of order `q` is float64; the long
sides stay in their dtype and are converted a piece at a time, which fits in the cache.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disentangle.linalg.primitives import reciprocal

_EPS = torch.finfo(torch.float64).eps
# The triangle of a Gram matrix is made of blocks of this order.
_BLOCK = 128
# Up to this condition number float32 is enough for what follows the Gram matrix: a product with
# the inverse root loses a factor of it.
_WELL_CONDITIONED = 8.0


def gram_matrix(matrix: Tensor) -> Tensor:
    """`A Aᵀ` in float64 of `(…, q, n)`; of a large matrix on a CPU the lower triangle only."""
    q = matrix.shape[-2]
    if matrix.ndim > 2 or q <= _BLOCK or matrix.device.type != "cpu":
        pieces = (matrix[..., chunk].double() for chunk in _chunks(matrix, torch.float64))
        return _sum([_row_products(x, x) for x in pieces])
    total = matrix.new_zeros((q, q), dtype=torch.float64)
    for chunk in _chunks(matrix, torch.float64):
        x = matrix[:, chunk].double()
        for i in range(0, q, _BLOCK):
            total[i : i + _BLOCK, : i + _BLOCK].addmm_(x[i : i + _BLOCK], x[: i + _BLOCK].mT)
    return total


def cross_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """`A Bᵀ` in float64 of two `(…, q, n)`, computed in `dtype`."""
    pairs = ((left[..., c].to(dtype), right[..., c].to(dtype)) for c in _chunks(left, dtype))
    return _sum([_row_products(a, b).double() for a, b in pairs])


def combine(terms: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> Tensor:
    """`Σ Lᵢ Aᵢ` of `(…, q, q)` and `(…, q, n)`, computed in `dtype`, in the dtype of `Aᵢ`."""
    result = torch.empty_like(terms[0][1])
    terms = [(left.to(dtype), matrix) for left, matrix in terms]
    for chunk in _chunks(result, dtype):
        part = result[..., chunk]
        total = part if part.dtype == dtype else part.new_empty(part.shape, dtype=dtype)
        for i, (left, matrix) in enumerate(terms):
            right = matrix[..., chunk].to(dtype)
            if i == 0:
                torch.matmul(left, right, out=total)
            elif total.ndim == 2:
                total.addmm_(left, right)
            else:
                total += left @ right
        if total is not part:
            part.copy_(total)
    return result


def _sum(products: list[Tensor]) -> Tensor:
    return products[0] if len(products) == 1 else torch.stack(products).sum(dim=0)


def _row_products(left: Tensor, right: Tensor) -> Tensor:
    q, n = left.shape[-2:]
    if left.ndim > 2 or q > 16 or n % 8 or n < 2**12:
        return left @ right.mT
    # One product of a few long rows keeps one core busy, a batch of them all.
    a, b = (rows.unflatten(-1, (8, -1)).transpose(0, 1) for rows in (left, right))
    return torch.bmm(a, b.mT).sum(dim=0)  # (8, q, n / 8) each


class EigenRoot(NamedTuple):
    """`H = (A Aᵀ)^½` by an eigendecomposition: on a CPU.

    Attributes:
        U: Eigenvectors `(…, q, q)`.
        sigmas: Singular values of `A`, `(…, q)`; 0 for those that count as zero.
        dtype: In which products with the inverse are within 1e-6 of the exact ones.
    """

    U: Tensor
    sigmas: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, gram: Tensor, resolution: float, floor: Tensor | None = None) -> "EigenRoot":
        """From `A Aᵀ`, whose lower triangle is read.

        Args:
            gram: `(…, q, q)`, float64.
            resolution: Fraction of the trace below which an eigenvalue counts as zero.
            floor: Singular value below which one counts as zero too, `(…)`, float64.
        """
        # NumPy has done the small arithmetic before PyTorch has made the calls for it.
        trace = gram.numpy().trace(axis1=-2, axis2=-1)[..., None]
        # `eigh` raises at an entry that is not finite; squares of float32 cannot overflow.
        finite = np.isfinite(trace)
        lambdas, U = torch.linalg.eigh(torch.where(torch.from_numpy(finite)[..., None], gram, 0.0))
        values, null = lambdas.numpy(), np.where(finite, 0.0, np.nan)
        zero = resolution * trace
        if floor is not None:
            zero = np.maximum(zero, floor.numpy()[..., None] ** 2)
        sigmas = np.sqrt(np.where(values > zero, values, null))
        dtype = torch.float32 if _well_conditioned(sigmas) else torch.float64
        return cls(U, torch.from_numpy(sigmas), dtype)

    @property
    def inverse(self) -> Tensor:
        """`H⁺`, `(…, q, q)`, in `dtype`."""
        sigmas = self.sigmas.numpy()
        scales = np.where(sigmas == 0, 0.0, 1 / np.where(sigmas == 0, 1.0, sigmas))
        U = self.U.to(self.dtype)
        return (U * torch.from_numpy(scales).to(self.dtype)[..., None, :]) @ U.mT

    def solve(self, C: Tensor) -> Tensor:
        """The `X` of `H X + X H = C`, 0 where both sides are in the null space of `H`."""
        rotated = self.U.mT @ C @ self.U
        divisors = self.sigmas[..., :, None] + self.sigmas[..., None, :]
        return self.U @ (rotated * reciprocal(divisors)) @ self.U.mT


class IteratedRoot(NamedTuple):
    """`H = (A Aᵀ)^½` by products of matrices: on a GPU, where they need no word from the host.

    `H` is regularised: `(A Aᵀ + τ I)^½` with `τ` at the resolution of the Gram matrix or above.

    Attributes:
        root: `H`, `(…, q, q)`.
        inverse: `H⁻¹ f(τ H⁻²)`, where `f(u) = (1 − u)² (1 + 5/2 u + 35/8 u²)` undoes the
            regularisation of singular values far above `√τ` and suppresses those below.
        bound: An upper bound on `H`, `(…, 1, 1)`.
        lowest: A lower bound on the eigenvalues of `H / bound`.
        dtype: Type for products with the inverse; asking whether float32 suffices costs a host
            synchronisation.
    """

    root: Tensor
    inverse: Tensor
    bound: Tensor
    lowest: float
    dtype: torch.dtype = torch.float64

    @classmethod
    def of(cls, gram: Tensor, resolution: float, floor: Tensor | None = None) -> "IteratedRoot":
        """From `A Aᵀ`, both triangles of it, by the coupled Newton-Schulz iteration.

        Source: Higham, Functions of Matrices, 2008, eq. 6.35.

        Args:
            gram: `(…, q, q)`, float64.
            resolution: `τ` as a fraction of the trace, at least.
            floor: `√τ` at least, `(…)`, float64.
        """
        q = gram.shape[-1]
        identity = torch.eye(q, dtype=gram.dtype, device=gram.device)
        trace = _trace(gram)
        trace = torch.where(trace == 0, 1.0, trace)
        tau = resolution * trace
        if floor is not None:
            tau = torch.maximum(tau, floor[..., None, None].square())
        bound = (trace + q * tau).sqrt()
        # Also if τ is larger: the quotient τ / bound² grows with it.
        lowest = math.sqrt(resolution / (1 + q * resolution))
        Y, Z = (gram + tau * identity) / bound**2, identity
        for scale in _scales(lowest):
            T = 0.5 * scale * (3 * identity - scale**2 * (Z @ Y))
            Y, Z = Y @ T, T @ Z
        Z = Z / bound
        U = tau * (Z @ Z)
        left = identity - U
        # The series of (1 − u)^(−5/2), so that √(1 − u) f(u) = 1 + O(u³).
        filtered = Z @ left @ left @ (identity + 2.5 * U + 4.375 * (U @ U))
        return cls(Y * bound, filtered, bound, lowest)

    def solve(self, C: Tensor) -> Tensor:
        """The `X` of `H X + X H = C`, from the sign of the block matrix `[[H, C], [0, −H]]`.

        Source: Higham, Functions of Matrices, 2008, section 2.4.
        """
        N = self.root / self.bound
        for scale in _scales(self.lowest):
            squared = N @ N
            commutator = N @ C - C @ N
            C = 0.5 * scale * (3 * C - scale**2 * (N @ commutator + C @ squared))
            N = 0.5 * scale * (3 * N - scale**2 * (N @ squared))
        return 0.5 * C / self.bound


def resolution_of(matrix: Tensor) -> float:
    """Threshold of zero for eigenvalues of the Gram matrix, as a fraction of its trace."""
    # The Gram matrix errs by √n eps or less; 4 √n is at least 10 times the error measured on null
    # eigenvalues from 512 × 512 to 6 × 524288.
    return max(torch.finfo(matrix.dtype).eps ** 2, 4 * matrix.shape[-1] ** 0.5 * _EPS)


def _well_conditioned(sigmas: NDArray[np.float64]) -> bool:
    """Return True if the nonzero singular values are within a factor of each other."""
    # A compiled graph has no branch on a value, and a matrix must not depend on its batch.
    if torch.compiler.is_compiling() or sigmas.ndim > 1:
        return False
    nonzero = sigmas[sigmas > 0]
    if not nonzero.size:
        return False
    low, high = nonzero.min(), nonzero.max()
    # The reciprocals must be float32 numbers of full precision, too.
    return bool(low * _WELL_CONDITIONED >= high and low > 1e-30 and high < 1e30)


def _scales(lowest: float) -> Iterator[float]:
    """Factors that make each Newton-Schulz step the best for eigenvalues from `lowest` to 1.

    `x ← ½ s x (3 − s² x²)` maps them to an interval that ends at 1 again. Unscaled, with `s = 1`,
    a small one would grow by a factor of 1.5 a step and not of 2.6.

    Source: Chen and Chow, A stable scaling of Newton-Schulz, 2014.
    """
    while 1 - lowest > 1e-12:
        scale = math.sqrt(3 / (1 + lowest + lowest**2))
        lowest = 0.5 * scale * lowest * (3 - scale**2 * lowest**2)
        yield scale


def _chunks(matrix: Tensor, dtype: torch.dtype) -> list[slice]:
    """Columns to convert to `dtype` at a time."""
    n = matrix.shape[-1]
    if matrix.dtype == dtype:
        return [slice(0, n)]
    # A CPU wants what fits in its cache, a GPU few calls.
    entries = 2**18 if matrix.device.type == "cpu" else 2**24
    rows = max(1, matrix[..., :1].numel())
    columns = max(1024, entries // rows // 8 * 8)
    return [slice(start, start + columns) for start in range(0, n, columns)]


def _trace(gram: Tensor) -> Tensor:
    """`(…, 1, 1)`."""
    return gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
