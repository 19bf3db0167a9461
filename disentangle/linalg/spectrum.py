"""How well a covariance is conditioned."""

import torch
from torch import Tensor

from disentangle.linalg.checks import check_covariance

_EPS = torch.finfo(torch.float64).eps


def condition_number(covariance: Tensor) -> Tensor:
    """`λmax / λmin` of a symmetric positive semi-definite matrix.

    Infinite for a singular matrix: when `λmin` is at most what rounding the entries to their dtype
    and finding the eigenvalues in float64 can make of a zero, `eps(dtype) ‖C‖_F` and
    `n eps(float64) λmax`.

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
    lambdas = _eigenvalues(covariance)
    smallest, largest = lambdas[..., 0], lambdas[..., -1]
    rounding = torch.finfo(covariance.dtype).eps * torch.linalg.vector_norm(lambdas, dim=-1)
    zero = torch.maximum(rounding, lambdas.shape[-1] * _EPS * largest)
    return torch.where(smallest <= zero, torch.inf, largest / smallest)


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
    # (…, n)
    lambdas = _eigenvalues(covariance).clamp(min=0)
    total = lambdas.sum(dim=-1, keepdim=True)
    entropy = torch.special.entr(lambdas / total).sum(dim=-1)
    return torch.where(total.squeeze(-1) == 0, 0.0, entropy.exp())


def _eigenvalues(covariance: Tensor) -> Tensor:
    """Eigenvalues `(…, n)` in float64, ascending; not a number where an entry is not finite."""
    check_covariance(covariance)
    finite = covariance.isfinite().all(dim=-1).all(dim=-1)[..., None]
    clean = torch.where(finite[..., None], covariance.double(), 0.0)
    return torch.where(finite, torch.linalg.eigvalsh(clean), torch.nan)
