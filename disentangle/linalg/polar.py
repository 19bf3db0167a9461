"""The polar factor: the nearest matrix with orthonormal rows or columns."""

import torch
from torch import Tensor

from disentangle.linalg.checks import check_matrix

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
    check_matrix("matrix", matrix)
    if matrix.shape[-2] > matrix.shape[-1]:
        return polar_factor(matrix.mT).mT
    if matrix.dtype == torch.float64:
        return _polar_by_svd(matrix)
    return _polar_by_gram(matrix)


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
