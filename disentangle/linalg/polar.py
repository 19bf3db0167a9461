"""The polar factor: the nearest matrix with orthonormal rows or columns."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from disentangle.linalg.checks import check_matrix
from disentangle.linalg.gram import (
    EigenRoot,
    IteratedRoot,
    combine,
    cross_product,
    gram_matrix,
    resolution_of,
)
from disentangle.linalg.primitives import are_finite, without_autocast

# Up to so many entries, a CPU has done the SVD in float64 before it has made the few calls more
# that the Gram matrix takes.
_SMALL = 4096


def polar_factor(matrix: Tensor) -> Tensor:
    """The orthogonal factor `U Vᵀ` of a matrix `A = U S Vᵀ` (thin SVD).

    The nearest matrix to `A` with orthonormal rows (`m ≤ n`) or columns (`m ≥ n`). At a
    rank-deficient `A` that matrix is not unique: the answer here is the partial isometry, the sum
    of `u vᵀ` over the singular values that are not zero, so that zero goes to zero.

    Half, bfloat16 and float32 go through the Gram matrix of the smaller side, in float64:
    `(A Aᵀ)^{-½} A`. It squares the condition number, for which float64 has the room: the result is
    within 1e-6 of the exact one up to a condition number of 1e3, closer than `torch.linalg.svd` in
    float32. Float64 has no such room and goes through `torch.linalg.svd`, and so do small matrices,
    converted to float64.

    A singular value counts as zero below `eps(dtype) ‖A‖_F`, since rounding the entries to their
    dtype moves it by at most half of that, or below `2 max(m, n)^¼ √eps(float64) ‖A‖_F`, what the
    Gram matrix resolves; in float64, below `max(m, n) eps(float64) σmax`.

    On CUDA nothing waits for the host: the Gram matrix's root, in float64 too, comes from products
    of matrices. There the step at the threshold is a slope: a singular value of `t` times the
    threshold goes to `1 − 6.6 t⁻⁶` for `t ≫ 1` and to `7.9 t⁵` for `t ≪ 1`.

    The gradient is finite at equal singular values; it is that of the directions that are not
    zero, and of order `1 / σ` along the weakest. On CUDA, near the threshold, it is smaller than
    the slope. There is no second derivative: asking for it is a `RuntimeError`. `torch.func` does
    not reach through.

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
    if matrix.requires_grad and torch.is_grad_enabled():
        return _PolarFactor.apply(matrix)
    return _factorise(matrix)[0]


def polar_factors(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The polar factors of several matrices, each as from `polar_factor`, without a gradient.

    Matrices with shorter sides of the same length share one decomposition on a GPU,
    however long they are: the bases of a generator take hardly more kernels than one of them. The
    longest then sets the threshold below which a singular value counts as zero.

    Args:
        matrices: Each `(…, m, n)`, floating point.

    Raises:
        ValueError: If one has fewer than 2 dimensions or is not floating point.

    Examples:
        >>> [Q.shape for Q in polar_factors([torch.ones(2, 3), torch.ones(5, 2)])]
        [torch.Size([2, 3]), torch.Size([5, 2])]
    """
    for matrix in matrices:
        check_matrix("matrix", matrix)
    wide = [A.detach() if A.shape[-2] <= A.shape[-1] else A.detach().mT for A in matrices]
    groups: dict[object, list[int]] = {}
    for i, matrix in enumerate(wide):
        alone = i if _root_class(matrix) is EigenRoot else None
        key = (alone, matrix.shape[:-1], matrix.dtype, matrix.device)
        groups.setdefault(key, []).append(i)
    factors = list(wide)
    for members in groups.values():
        for i, Q in zip(members, _factorise_alike([wide[i] for i in members]), strict=True):
            factors[i] = Q
    return [Q if Q.shape == A.shape else Q.mT for Q, A in zip(factors, matrices, strict=True)]


class _PolarFactor(torch.autograd.Function):
    """The polar factor `Q` of a wide matrix `A = H Q`, and its gradient.

    From `dA = dH Q + H dQ`: `dQ Qᵀ` is the skew-symmetric `Ω` with
    `H Ω + Ω H = dA Qᵀ − Q dAᵀ`, and `dQ (I − Qᵀ Q) = H⁻¹ dA (I − Qᵀ Q)`.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        Q, root = _factorise(matrix)
        ctx.save_for_backward(Q)
        ctx.root = root
        return Q

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Gradients are recorded here only for a derivative of the derivative.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError("polar_factor has no second derivative: create_graph must be False")
        (Q,), root = ctx.saved_tensors, ctx.root
        with without_autocast(Q):
            C = cross_product(gradient, Q, root.dtype)
            inverse = root.inverse
            K = root.solve(C - C.mT) - inverse.double() @ C
            return combine([(K, Q), (inverse, gradient)], root.dtype)


def _root_class(matrix: Tensor) -> type[EigenRoot] | type[IteratedRoot]:
    return EigenRoot if matrix.device.type == "cpu" else IteratedRoot


def _factorise(matrix: Tensor) -> tuple[Tensor, EigenRoot | IteratedRoot]:
    """`Q` and `H` of a wide matrix `A = H Q`."""
    kind = _root_class(matrix)
    small = matrix.ndim == 2 and matrix.numel() <= _SMALL
    if kind is EigenRoot and (small or matrix.dtype == torch.float64):
        return _factorise_by_svd(matrix)
    with without_autocast(matrix):
        root = kind.of(gram_matrix(matrix), resolution_of(matrix))
        return combine([(root.inverse, matrix)], root.dtype), root


def _factorise_alike(matrices: list[Tensor]) -> list[Tensor]:
    """The polar factors of wide matrices of equal `(…, q)`, dtype and device."""
    if len(matrices) == 1:
        return [_factorise(matrices[0])[0]]
    with without_autocast(matrices[0]):
        grams = torch.stack([gram_matrix(matrix) for matrix in matrices])
        root = IteratedRoot.of(grams, max(map(resolution_of, matrices)))
        inverses = root.inverse.unbind()
        return [combine([pair], root.dtype) for pair in zip(inverses, matrices, strict=True)]


def _factorise_by_svd(matrix: Tensor) -> tuple[Tensor, EigenRoot]:
    A = matrix.double()
    finite = are_finite(A)
    U, S, Vh = torch.linalg.svd(torch.where(finite, A, 0.0), full_matrices=False)
    if matrix.dtype == torch.float64:
        # LAPACK's own error grows with the longer side: 40 eps on null singular values at
        # 6 × 524288.
        zero = matrix.shape[-1] * torch.finfo(matrix.dtype).eps * S[..., :1]
    else:
        zero = math.sqrt(resolution_of(matrix)) * torch.linalg.vector_norm(S, dim=-1, keepdim=True)
    # Not a number where the matrix is not finite.
    nonzero = torch.where(finite[..., 0], S.gt(zero), torch.nan)
    # In the layout of the matrix, which a tall one comes in transposed.
    polar = torch.empty_like(matrix).copy_((U * nonzero[..., None, :]) @ Vh)
    return polar, EigenRoot(U, S * nonzero, torch.float64)
