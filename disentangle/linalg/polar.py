"""The polar factor: the nearest matrix with orthonormal rows or columns."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from disentangle.linalg.checks import check_matrix
from disentangle.linalg.custom_function import NoSecondDerivativeError, call
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
# Matrices of one shape up to here are stacked and treated in one call. On a CPU, with one thread
# and with two, 8 of 6 × 1024 are then 4 to 6 times faster, of 64 × 64 1.4 to 2 times; 128 × 512 are
# as fast either way, and 6 × 524288 1.4 to 3.6 times slower for the copy.
_FEW_ENTRIES = 2**15


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
    the slope. `torch.func.grad`, `vmap` and `jvp` are supported. There is no second derivative:
    asking for it is a `RuntimeError`.

    Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119; Higham,
    Functions of Matrices, 2008, chapter 8, https://doi.org/10.1137/1.9780898717778.

    Args:
        matrix: `(…, m, n)`, floating point.

    Returns:
        `(…, m, n)`, in the dtype of `matrix`. Not a number throughout, where a matrix of the batch
        has an entry that is not finite.

    Raises:
        ValueError: If `matrix` is not dense, has fewer than 2 dimensions or is not floating point.
        RuntimeError: When a second derivative reaches it.

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
    return call(_PolarFactor, matrix)[0]


def polar_factors(
    matrices: Sequence[Tensor], floors: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """The polar factors of several matrices, each as from `polar_factor`, without a gradient.

    Small matrices of one shape are stacked. Matrices with shorter sides of the same length share
    one decomposition on a GPU, however long they are: the bases of a generator take hardly more
    kernels than one of them. The longest then sets the threshold below which a singular value
    counts as zero.

    Args:
        matrices: Each `(…, m, n)`, floating point.
        floors: Absolute size, for each matrix `(…)` in float64, below which a singular value counts
            as zero too: that of the error in the matrix.

    Raises:
        ValueError: If one has fewer than 2 dimensions or is not floating point.

    Examples:
        >>> [Q.shape for Q in polar_factors([torch.ones(2, 3), torch.ones(5, 2)])]
        [torch.Size([2, 3]), torch.Size([5, 2])]
        >>> floor = torch.tensor(0.1, dtype=torch.float64)
        >>> polar_factors([torch.tensor([[3.0, 0.0], [0.0, 0.01]])], [floor])
        [tensor([[1., 0.],
                [0., 0.]])]
    """
    for matrix in matrices:
        check_matrix("matrix", matrix)
    alike: dict[object, list[int]] = {}
    for i, matrix in enumerate(matrices):
        shape = matrix.shape if matrix.numel() <= _FEW_ENTRIES else i
        alike.setdefault((shape, matrix.dtype, matrix.device), []).append(i)
    batches = [_stack([matrices[i].detach() for i in members]) for members in alike.values()]
    levels: list[Tensor | None] = [None] * len(batches)
    if floors is not None:
        levels = [_stack([floors[i] for i in members]) for members in alike.values()]
    factors = list(matrices)
    for members, Q in zip(alike.values(), _factorise_each(batches, levels), strict=True):
        for i, one in zip(members, Q if len(members) > 1 else [Q], strict=True):
            factors[i] = one
    return factors


def _stack(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0]


class _PolarFactor(torch.autograd.Function):
    """The polar factor `Q` of a wide matrix `A = H Q`, and the fields of the root `H`, constants.

    Transforms of `torch.func` do not enter `forward`, which uses NumPy and in-place products.
    """

    @staticmethod
    def forward(matrix: Tensor) -> tuple[Any, ...]:
        Q, root = _factorise(matrix)
        return Q, *root

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Any, ...]) -> None:
        tensors = _save(ctx, output)
        ctx.mark_non_differentiable(*tensors[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, *_: Any) -> Tensor | None:
        return None if gradient is None else _derivative(ctx, gradient)

    @staticmethod
    def tangent(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        constants = len(ctx.saved_tensors) - 1 + len(ctx.constants)
        return _derivative(ctx, change), *[None] * constants

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], matrix: Tensor) -> tuple[tuple[Any, ...], int]:
        return call(_PolarFactor, matrix.movedim(in_dims[0], 0)), 0


class _Derivative(torch.autograd.Function):
    """The change of the polar factor `Q` with a change of `A = H Q`.

    From `dA = dH Q + H dQ`: `dQ Qᵀ` is the skew-symmetric `Ω` with
    `H Ω + Ω H = dA Qᵀ − Q dAᵀ`, and `dQ (I − Qᵀ Q) = H⁻¹ dA (I − Qᵀ Q)`. The map from `dA` to `dQ`
    is its own adjoint, being the second derivative of the sum of the singular values.
    """

    @staticmethod
    def forward(change: Tensor, Q: Tensor, *fields: Any) -> Tensor:
        root = _root_class(Q)(*fields)
        with without_autocast(Q):
            C = cross_product(change, Q, root.dtype)
            inverse = root.inverse
            K = root.solve(C - C.mT) - inverse.double() @ C
            return combine([(K, Q), (inverse, change)], root.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _save(ctx, inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        constants = len(ctx.saved_tensors) + len(ctx.constants)
        if gradient is None:
            return (None,) * (1 + constants)
        if ctx.needs_input_grad[1]:
            raise NoSecondDerivativeError("polar_factor")
        return _derivative(ctx, gradient), *[None] * constants

    @staticmethod
    def tangent(ctx: Any, change: Tensor, dQ: Tensor | None, *_: Any) -> Tensor:
        if dQ is not None:
            raise NoSecondDerivativeError("polar_factor")
        return _derivative(ctx, change)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        def batch_first(x: Any, dim: int | None) -> Any:
            if not isinstance(x, Tensor):
                return x
            return x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)

        return call(_Derivative, *map(batch_first, inputs, in_dims)), 0


def _save(ctx: Any, values: tuple[Any, ...]) -> list[Tensor]:
    """Keep `Q` and the fields of the root for the derivative, and return the tensors of them.

    They are the first of the fields.
    """
    # None in place of zeros tells what is not differentiated by.
    ctx.set_materialize_grads(False)
    tensors = [value for value in values if isinstance(value, Tensor)]
    ctx.constants = values[len(tensors) :]
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    return tensors


def _derivative(ctx: Any, change: Tensor) -> Tensor:
    return call(_Derivative, change, *ctx.saved_tensors, *ctx.constants)


def _root_class(matrix: Tensor) -> type[EigenRoot] | type[IteratedRoot]:
    return EigenRoot if matrix.device.type == "cpu" else IteratedRoot


def _factorise(
    matrix: Tensor, floor: Tensor | None = None
) -> tuple[Tensor, EigenRoot | IteratedRoot]:
    """`Q` and `H` of a wide matrix `A = H Q`."""
    kind = _root_class(matrix)
    small = matrix.ndim == 2 and matrix.numel() <= _SMALL
    if kind is EigenRoot and (small or matrix.dtype == torch.float64):
        return _factorise_by_svd(matrix, floor)
    with without_autocast(matrix):
        root = kind.of(gram_matrix(matrix), resolution_of(matrix), floor)
        return combine([(root.inverse, matrix)], root.dtype), root


def _factorise_each(matrices: list[Tensor], floors: list[Tensor | None]) -> list[Tensor]:
    """The polar factors of several matrices, decomposed together where that takes fewer kernels."""
    wide = [A if A.shape[-2] <= A.shape[-1] else A.mT for A in matrices]
    groups: dict[object, list[int]] = {}
    for i, matrix in enumerate(wide):
        alone = i if _root_class(matrix) is EigenRoot else None
        key = (alone, matrix.shape[:-1], matrix.dtype, matrix.device)
        groups.setdefault(key, []).append(i)
    factors = list(wide)
    for members in groups.values():
        alike = _factorise_alike([wide[i] for i in members], [floors[i] for i in members])
        for i, Q in zip(members, alike, strict=True):
            factors[i] = Q
    return [Q if Q.shape == A.shape else Q.mT for Q, A in zip(factors, matrices, strict=True)]


def _factorise_alike(matrices: list[Tensor], floors: list[Tensor | None]) -> list[Tensor]:
    """The polar factors of wide matrices of equal `(…, q)`, dtype and device."""
    if len(matrices) == 1:
        return [_factorise(matrices[0], floors[0])[0]]
    known = [floor for floor in floors if floor is not None]
    with without_autocast(matrices[0]):
        grams = torch.stack([gram_matrix(matrix) for matrix in matrices])
        root = IteratedRoot.of(
            grams, max(map(resolution_of, matrices)), torch.stack(known) if known else None
        )
        inverses = root.inverse.unbind()
        return [combine([pair], root.dtype) for pair in zip(inverses, matrices, strict=True)]


def _factorise_by_svd(matrix: Tensor, floor: Tensor | None) -> tuple[Tensor, EigenRoot]:
    A = matrix.double()
    finite = are_finite(A)
    U, S, Vh = torch.linalg.svd(torch.where(finite, A, 0.0), full_matrices=False)
    if matrix.dtype == torch.float64:
        # LAPACK's own error grows with the longer side: 40 eps on null singular values at
        # 6 × 524288.
        zero = matrix.shape[-1] * torch.finfo(matrix.dtype).eps * S[..., :1]
    else:
        zero = math.sqrt(resolution_of(matrix)) * torch.linalg.vector_norm(S, dim=-1, keepdim=True)
    if floor is not None:
        zero = torch.maximum(zero, floor[..., None])
    # Not a number where the matrix is not finite.
    nonzero = torch.where(finite[..., 0], S.gt(zero), torch.nan)
    # In the layout of the matrix, which a tall one comes in transposed.
    polar = torch.empty_like(matrix).copy_((U * nonzero[..., None, :]) @ Vh)
    return polar, EigenRoot(U, S * nonzero, torch.float64)
