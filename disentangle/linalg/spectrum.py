"""Conditioning of a covariance, or of a matrix through its Gram matrix."""

from typing import NamedTuple

import torch
from torch import Tensor

from disentangle.linalg.checks import check_covariance, check_matrix
from disentangle.linalg.gram import gram_matrix, resolution_of
from disentangle.linalg.primitives import are_finite, zero_level


class Spectrum(NamedTuple):
    """The eigenvalues of symmetric positive semi-definite matrices.

    Attributes:
        eigenvalues: `(…, n)`, float64, ascending; not a number where the matrix is not finite.
        zero: `(…)`, float64. An eigenvalue up to here may be rounding and counts as zero.
    """

    eigenvalues: Tensor
    zero: Tensor

    def condition_number(self, *, eps: float = 0.0) -> Tensor:
        """`(λmax + eps) / (λmin + eps)`, `(…)`; infinite where the divisor counts as zero.

        Args:
            eps: What is added to the diagonal; positive, it leaves nothing to count as zero.
        """
        lambdas = self.eigenvalues.clamp(min=0) + eps
        smallest, largest = lambdas[..., 0], lambdas[..., -1]
        return torch.where(smallest <= (0 if eps else self.zero), torch.inf, largest / smallest)

    def scaled_to_mean(self) -> "Spectrum":
        """The spectrum of the matrices divided by their mean eigenvalue; NaN for zero."""
        mean = self.eigenvalues.mean(dim=-1)
        return Spectrum(self.eigenvalues / mean[..., None], self.zero / mean)

    def nonnull_condition_number(self) -> Tensor:
        """`λmax` over the smallest eigenvalue that is not zero, `(…)`; not a number if all are."""
        nonnull = self.eigenvalues > self.zero[..., None]
        smallest = torch.where(nonnull, self.eigenvalues, torch.inf).amin(dim=-1)
        return torch.where(nonnull.any(dim=-1), self.eigenvalues[..., -1] / smallest, torch.nan)

    def effective_rank(self) -> Tensor:
        """The exponential of the entropy of the normalised eigenvalues, `(…)`; 0 if all are 0."""
        lambdas = self.eigenvalues.clamp(min=0)
        total = lambdas.sum(dim=-1, keepdim=True)
        entropy = torch.special.entr(lambdas / total).sum(dim=-1)
        return torch.where(total.squeeze(-1) == 0, 0.0, entropy.exp())


def covariance_spectrum(covariance: Tensor) -> Spectrum:
    """The spectrum of a symmetric positive semi-definite matrix.

    An eigenvalue counts as zero when it is at most what rounding the entries to their dtype and
    finding the eigenvalues in float64 can make of a zero, `eps(dtype) ‖C‖_F` and
    `n eps(float64) λmax`.

    Args:
        covariance: `(…, n, n)`, floating point; its lower triangle is read.

    Raises:
        ValueError: If `covariance` is not square, is empty or is not floating point.

    Examples:
        >>> covariance_spectrum(torch.diag(torch.tensor([4.0, 1.0]))).eigenvalues.tolist()
        [1.0, 4.0]
    """
    check_covariance(covariance)
    lambdas = _eigenvalues(covariance.double())
    return Spectrum(lambdas, zero_level(lambdas, covariance.dtype).squeeze(-1))


def gram_spectrum(matrix: Tensor) -> Spectrum:
    """The spectrum of `A Aᵀ` or `Aᵀ A`, whichever is smaller: the squares of the singular values.

    An eigenvalue counts as zero where a singular value does in `polar_factor`; in float64 already
    at what the Gram matrix resolves, about 1e-14 of the trace.

    Args:
        matrix: `(…, m, n)`, floating point, not empty.

    Raises:
        ValueError: If `matrix` has fewer than 2 dimensions, is empty or is not floating point.

    Examples:
        >>> gram_spectrum(torch.tensor([[3.0, 0.0, 0.0], [0.0, -4.0, 0.0]])).eigenvalues.tolist()
        [9.0, 16.0]
    """
    check_matrix("matrix", matrix)
    if not matrix.numel():
        raise ValueError(f"matrix must not be empty, got shape {tuple(matrix.shape)}")
    wide = matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT
    lambdas = _eigenvalues(gram_matrix(wide))
    return Spectrum(lambdas, resolution_of(wide) * lambdas.sum(dim=-1))


def feature_spectrum(features: Tensor) -> Spectrum:
    """The spectrum of the covariance of features, `Σ (x − x̄)(x − x̄)ᵀ / M` over `M` samples.

    With fewer samples than features, the other eigenvalues are exactly zero. An eigenvalue counts
    as zero when rounding the features to their dtype can have made it.

    Args:
        features: `(…, M, C)`, floating point, not empty.

    Returns:
        `C` eigenvalues.

    Raises:
        ValueError: If `features` has fewer than 2 dimensions, is empty or is not floating point.

    Examples:
        >>> feature_spectrum(torch.tensor([[2.0, 5.0], [-2.0, 5.0]])).eigenvalues.tolist()
        [0.0, 4.0]
    """
    check_matrix("features", features)
    if not features.numel():
        raise ValueError(f"features must not be empty, got shape {tuple(features.shape)}")
    M, C = features.shape[-2:]
    mean = features.mean(dim=-2, keepdim=True, dtype=torch.float64)
    centred = features - mean
    covariance = gram_matrix(centred.mT if C <= M else centred) / M
    lambdas = torch.nn.functional.pad(_eigenvalues(covariance), (max(C - M, 0), 0))
    # Rounding is relative to the features as they came, mean and all.
    size = torch.linalg.matrix_norm(features, dtype=torch.float64).square() / M
    rounding = torch.finfo(features.dtype).eps ** 2 * size
    arithmetic = resolution_of(centred.mT if C <= M else centred) * lambdas.sum(dim=-1)
    return Spectrum(lambdas, torch.maximum(rounding, arithmetic))


def condition_number(covariance: Tensor) -> Tensor:
    """`λmax / λmin` of a symmetric positive semi-definite matrix.

    Infinite for a singular matrix, up to rounding: see `covariance_spectrum`.

    Args:
        covariance: `(…, n, n)`, floating point; its lower triangle is read.

    Returns:
        `(…)`, float64: half precision would overflow at 65504. At least 1; not a number where the
        covariance has an entry that is not finite.

    Raises:
        ValueError: If `covariance` is not square, is empty or is not floating point.

    Examples:
        >>> condition_number(torch.diag(torch.tensor([4.0, 2.0, 1.0]))).item()
        4.0
        >>> condition_number(torch.diag(torch.tensor([1.0, 0.0]))).item()
        inf
    """
    return covariance_spectrum(covariance).condition_number()


def effective_rank(covariance: Tensor) -> Tensor:
    """The exponential of the entropy of the normalised eigenvalues, from 1 to `n`.

    `n` when all eigenvalues are equal, 1 when one carries everything. Negative eigenvalues, the
    roundoff of a positive semi-definite matrix, count as zero.

    Source: Roy and Vetterli, The effective rank, EUSIPCO 2007,
    https://ieeexplore.ieee.org/document/7098875.

    Args:
        covariance: `(…, n, n)`, symmetric positive semi-definite, floating point; its lower
            triangle is read.

    Returns:
        `(…)`, float64; 0 for the zero matrix, not a number where the covariance has an entry that
        is not finite.

    Raises:
        ValueError: If `covariance` is not square, is empty or is not floating point.

    Examples:
        >>> round(effective_rank(torch.eye(3)).item(), 6)
        3.0
        >>> effective_rank(torch.diag(torch.tensor([1.0, 0.0, 0.0]))).item()
        1.0
    """
    return covariance_spectrum(covariance).effective_rank()


def _eigenvalues(symmetric: Tensor) -> Tensor:
    """Eigenvalues `(…, n)`, ascending; not a number where an entry is not finite."""
    finite = are_finite(symmetric)
    clean = torch.where(finite, symmetric, 0.0)
    return torch.where(finite[..., 0], torch.linalg.eigvalsh(clean), torch.nan)
