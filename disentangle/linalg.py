"""Matrix functions: the polar factor, and how well a covariance is conditioned.

All are pure, batched over leading dimensions, and stay on the device of their argument.
"""

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps


def polar_factor(matrix: Tensor) -> Tensor:
    """The orthogonal factor `U Vᵀ` of a matrix `A = U S Vᵀ` (thin SVD).

    The nearest matrix to `A` with orthonormal rows (`m ≤ n`) or columns (`m ≥ n`). At a
    rank-deficient `A` that matrix is not unique: the answer here is the partial isometry, the sum
    of `u vᵀ` over the singular values that are not zero, so that zero goes to zero.

    Half, bfloat16 and float32 go through the Gram matrix of the smaller side, in float64:
    `(A Aᵀ)^{-½} A`. It squares the condition number, for which float64 has the room: the result is
    within 1e-6 of the exact one up to a condition number of 1e3, closer than `torch.linalg.svd` in
    float32. Float64 has no such room and goes through `torch.linalg.svd`.

    A singular value counts as zero below `eps(dtype) ‖A‖_F`, since rounding the entries to their
    dtype moves it by at most half of that, or below `2 max(m, n)^¼ √eps(float64) ‖A‖_F`, what the
    Gram matrix resolves; in float64, below `max(m, n) eps(float64) σmax`.

    On CUDA the eigendecomposition synchronises with the host. The gradient is not finite where
    singular values coincide.

    Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119; Higham,
    Functions of Matrices, 2008, chapter 8, https://doi.org/10.1137/1.9780898717778.

    Args:
        matrix: `(…, m, n)`, floating point.

    Returns:
        `(…, m, n)`, in the dtype of `matrix`. Not a number throughout, where a matrix of the batch
        has an entry that is not finite.

    Raises:
        ValueError: If `matrix` has fewer than 2 dimensions or is not floating point.

    Examples:
        >>> polar_factor(torch.tensor([[3.0, 0.0, 0.0], [0.0, -4.0, 0.0]]))
        tensor([[ 1.,  0.,  0.],
                [ 0., -1.,  0.]])
        >>> polar_factor(torch.zeros(2, 2))
        tensor([[0., 0.],
                [0., 0.]])
    """
    _check_matrix("matrix", matrix)
    if matrix.shape[-2] > matrix.shape[-1]:
        return polar_factor(matrix.mT).mT
    if matrix.dtype == torch.float64:
        return _polar_by_svd(matrix)
    return _polar_by_gram(matrix)


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


def _polar_by_svd(matrix: Tensor) -> Tensor:
    """The polar factor of `(…, q, n)`, `q ≤ n`."""
    finite = matrix.isfinite().all(dim=-1).all(dim=-1)[..., None, None]
    U, S, Vh = torch.linalg.svd(torch.where(finite, matrix, 0.0), full_matrices=False)
    # LAPACK's own error grows with the longer side: 40 eps on null singular values at 6 × 524288.
    cutoff = matrix.shape[-1] * _EPS * S[..., :1]
    return torch.where(finite, (U * S.gt(cutoff)[..., None, :]) @ Vh, torch.nan)


def _polar_by_gram(matrix: Tensor) -> Tensor:
    """The polar factor of `(…, q, n)`, `q ≤ n`, by the float64 Gram matrix of its rows."""
    chunks = _chunks(matrix)
    gram = matrix.new_zeros((*matrix.shape[:-1], matrix.shape[-2]), dtype=torch.float64)
    for chunk in chunks:
        x = matrix[..., chunk].double()
        gram = gram + x @ x.mT
    # Squares of float32 entries cannot overflow in float64: the trace is finite iff they are.
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]
    finite = trace.isfinite()
    # `eigh` raises at an entry that is not finite.
    lambdas, U = torch.linalg.eigh(torch.where(finite, gram, 0.0))
    # The Gram matrix errs by √n eps or less; 4 √n is at least 10 times the error measured on null
    # eigenvalues from 512 × 512 to 6 × 524288.
    resolution = max(torch.finfo(matrix.dtype).eps ** 2, 4 * matrix.shape[-1] ** 0.5 * _EPS)
    nonzero = lambdas > resolution * trace[..., 0]
    scales = torch.where(nonzero, lambdas, 1.0).rsqrt() * nonzero
    # (…, q, q)
    inverse_root = torch.where(finite, (U * scales[..., None, :]) @ U.mT, torch.nan)
    polar = torch.empty_like(matrix)
    for chunk in chunks:
        # In float32 this product alone would lose a factor of the condition number.
        polar[..., chunk] = (inverse_root @ matrix[..., chunk].double()).to(matrix.dtype)
    return polar


def _chunks(matrix: Tensor) -> list[slice]:
    """Columns that fit in the cache when converted to float64, enough for a fast product."""
    n = matrix.shape[-1]
    columns = max(1024, 2**16 // max(1, matrix[..., :1].numel()))
    return [slice(start, start + columns) for start in range(0, n, columns)]


def _eigenvalues(covariance: Tensor) -> Tensor:
    """Eigenvalues `(…, n)` in float64, ascending; not a number where an entry is not finite."""
    _check_matrix("covariance", covariance)
    if covariance.shape[-1] != covariance.shape[-2] or covariance.shape[-1] == 0:
        raise ValueError(
            f"covariance must be square and not empty, (…, n, n), got {_shape(covariance)}"
        )
    finite = covariance.isfinite().all(dim=-1).all(dim=-1)[..., None]
    clean = torch.where(finite[..., None], covariance.double(), 0.0)
    return torch.where(finite, torch.linalg.eigvalsh(clean), torch.nan)


def _check_matrix(name: str, matrix: Tensor) -> None:
    if matrix.ndim < 2:
        raise ValueError(f"{name} must have at least 2 dimensions, (…, m, n), got {_shape(matrix)}")
    if not matrix.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {matrix.dtype}")


def _shape(tensor: Tensor) -> str:
    return f"shape {tuple(tensor.shape)}"
