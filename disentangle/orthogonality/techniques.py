"""The techniques that are functions of tensors: NOG, OLR and OL.

Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119, and TPAMI 2022,
https://arxiv.org/abs/2212.05599.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from disentangle.distributed.dtensor import is_sharded, local_parts, shard_like, sum_over_shards
from disentangle.linalg import polar_factor, polar_factors
from disentangle.linalg.checks import check_floating, check_matrix
from disentangle.orthogonality.parameters import as_matrix

# In the order in which they act: the optimal learning rate is that of the gradient in use.
OptimizerTechnique = Literal["nog", "olr"]
LossTechnique = Literal["ol"]
WeightTechnique = Literal["ow", "sn"]
Technique = Literal[OptimizerTechnique, LossTechnique, WeightTechnique]
OPTIMIZER_TECHNIQUES: tuple[str, ...] = get_args(OptimizerTechnique)
LOSS_TECHNIQUES: tuple[str, ...] = get_args(LossTechnique)
WEIGHT_TECHNIQUES: tuple[str, ...] = get_args(WeightTechnique)

# Gradients of one shape up to here are stacked and treated in one call. On a CPU, with one thread
# and with two, 8 of 6 × 1024 are then 4 to 6 times faster, of 64 × 64 1.4 to 2 times; 128 × 512 are
# as fast either way, and 6 × 524288 1.4 to 3.6 times slower for the copy.
_FEW_ENTRIES = 2**15
# What fits in the cache in float64: the inner products of 6 × 524288 are then 9 times faster.
_PIECE = 2**16


def nearest_orthogonal_gradient(gradient: Tensor) -> Tensor:
    """NOG: the polar factor of a gradient taken as a matrix. Its magnitude is discarded.

    A gradient of zero stays zero, and directions without gradient stay without (see
    `polar_factor`). A gradient with any entry that is not finite is passed through untouched, so
    that whoever looks for overflow still sees it. Differentiable once.

    Of a DTensor it is that of the full matrix, in the placements of the DTensor: every process
    gathers the matrix and must call this.

    Source: https://arxiv.org/abs/2207.02119.

    Args:
        gradient: As `as_matrix` takes it, floating point.

    Returns:
        The shape and dtype of `gradient`.

    Raises:
        ValueError: If `gradient` is not dense or not floating point, or has fewer than 2
            dimensions.

    Examples:
        >>> nearest_orthogonal_gradient(torch.tensor([[5.0, 0.0], [0.0, -0.1]]))
        tensor([[ 1.,  0.],
                [ 0., -1.]])
    """
    if is_sharded(gradient):
        return shard_like(nearest_orthogonal_gradient(gradient.full_tensor()), gradient)
    return _unless_lost(polar_factor(as_matrix(gradient)), gradient)


def nearest_orthogonal_gradients(gradients: Sequence[Tensor]) -> list[Tensor]:
    """NOG of several gradients, which may share kernels; without a derivative.

    Args:
        gradients: Each as for `nearest_orthogonal_gradient`.

    Returns:
        What `nearest_orthogonal_gradient` gives of each, up to rounding.

    Raises:
        ValueError: As `nearest_orthogonal_gradient`.

    Examples:
        >>> nearest_orthogonal_gradients([torch.tensor([[5.0]]), torch.tensor([[-0.1], [0.0]])])
        [tensor([[1.]]), tensor([[-1.], [ 0.]])]
    """
    results = list(gradients)
    alike: dict[object, list[int]] = {}
    for i, gradient in enumerate(gradients):
        if is_sharded(gradient):
            # At once, so that one full matrix is there at a time.
            results[i] = nearest_orthogonal_gradient(gradient)
        else:
            shape = as_matrix(gradient).shape if gradient.numel() <= _FEW_ENTRIES else i
            alike.setdefault((shape, gradient.dtype, gradient.device), []).append(i)
    matrices = [_stack([as_matrix(gradients[i]) for i in members]) for members in alike.values()]
    for members, polar in zip(alike.values(), polar_factors(matrices), strict=True):
        for i, one in zip(members, polar if len(members) > 1 else [polar], strict=True):
            results[i] = _unless_lost(one, gradients[i])
    return results


def _stack(matrices: list[Tensor]) -> Tensor:
    return torch.stack(matrices) if len(matrices) > 1 else matrices[0]


def _unless_lost(polar: Tensor, gradient: Tensor) -> Tensor:
    """The polar factor of a gradient in its shape, or the gradient where that is not finite."""
    # One entry tells: all of it is not a number if any of the gradient is not finite.
    lost = polar[:1, :1].isnan()
    return torch.where(lost, as_matrix(gradient), polar).reshape(gradient.shape)


def optimal_learning_rate(weight: Tensor, gradient: Tensor, base_rate: float | Tensor) -> Tensor:
    """OLR: the step size that brings the weight nearest to an orthogonal one, never above a base.

    `η = wᵀw·lᵀw / (wᵀw·lᵀl + 2 (lᵀw)²)` for weight `w` and gradient `l` as vectors, if
    `0 < η < base_rate`, else the base rate, as also when a vector is zero or not finite. It is the
    Newton step `−J′(0) / J″(0)` of `J(η) = ‖w − ηl‖⁴`, the paper's approximation to the distance.
    Differentiable.

    A cosine of `w` and `l` within `eps(dtype)` of 0 is rounding and counts as 0: the gradient of a
    weight whose scale has no effect (OW, SN) is at a right angle to it, and without this its step
    would be next to nothing by chance, in half of all steps. Where most of the gradient cancels on
    the way to the free parameter, rounding can still be larger than that.

    Of DTensors every process sums over its part and then over the processes: all get the same rate
    and must call this.

    Source: https://arxiv.org/abs/2207.02119.

    Args:
        weight: Any shape.
        gradient: The shape of `weight`; after NOG, if that is used too.
        base_rate: The learning rate not to exceed, a number or a tensor of one entry.

    Returns:
        0-d, float64, on the device of `weight`; never a DTensor.

    Raises:
        ValueError: If one of the tensors is not dense or not floating point, or the shapes differ.

    Examples:
        >>> optimal_learning_rate(torch.tensor([[3.0]]), torch.tensor([[2.0]]), 1.0).item()
        0.5
        >>> optimal_learning_rate(torch.tensor([[3.0]]), torch.tensor([[2.0]]), 0.1).item()
        0.1
    """
    check_floating("weight", weight)
    check_floating("gradient", gradient)
    if weight.shape != gradient.shape:
        raise ValueError(
            "weight and gradient must have the same shape, "
            f"got {tuple(weight.shape)} and {tuple(gradient.shape)}"
        )
    if isinstance(base_rate, Tensor):
        # `where` would copy a number in the host's memory to the GPU and wait for it.
        base_rate = base_rate.reshape(()).to(weight.device, non_blocking=True)
    ww, ll, lw = _inner_products(weight, gradient).unbind()
    # The square root of 0 has no derivative. In place of NaN, the cosine is then 0.
    w_norm, l_norm = (torch.where(square == 0, 1.0, square).sqrt() for square in (ww, ll))
    # The formula divided by (wᵀw)(lᵀl), whose product of four entries leaves the range sooner.
    cosine = lw / w_norm / l_norm
    eta = w_norm / l_norm * cosine / (1 + 2 * cosine**2)
    # A comparison with NaN, from a vector that is not finite, is false.
    optimal = (cosine > torch.finfo(weight.dtype).eps) & (eta < base_rate)
    return torch.where(optimal, eta, base_rate)


def _inner_products(weight: Tensor, gradient: Tensor) -> Tensor:
    """`wᵀw`, `lᵀl` and `lᵀw`, `(3,)`, in float64."""
    if is_sharded(weight):
        return sum_over_shards(_inner_products(*local_parts(weight, gradient)), weight)
    # A GPU does better with few kernels than with a cache.
    size = max(1, weight.numel()) if weight.is_cuda else _PIECE
    products = []
    for w, l in zip(weight.flatten().split(size), gradient.flatten().split(size), strict=True):  # noqa: E741
        w, l = w.double(), l.double()  # noqa: E741
        products.append(torch.stack([w.dot(w), l.dot(l), l.dot(w)]))
    return torch.stack(products).sum(dim=0)


def orthogonal_loss(matrices: Iterable[Tensor]) -> Tensor:
    """OL: how far matrices are from orthonormal rows or columns, whichever are fewer.

    The mean over the matrices of `mean((Gram − I)²)`, on the smaller of the two Gram matrices: of
    a 64 × 27 weight, 64 rows cannot be orthonormal. Differentiable. Zero for orthonormal matrices.

    Source: https://arxiv.org/abs/2207.02119.

    Args:
        matrices: Weights as `as_matrix` takes them, at least one.

    Returns:
        0-d, in the dtype of the matrices.

    Raises:
        ValueError: If there is no matrix, or one is not dense, has fewer than 2 dimensions or is
            not floating point.

    Examples:
        >>> orthogonal_loss([torch.eye(2), 2 * torch.eye(2)])
        tensor(2.2500)
    """
    losses = []
    for U in map(as_matrix, matrices):
        check_matrix("matrix", U)
        gram = U @ U.mT if U.shape[0] <= U.shape[1] else U.mT @ U
        identity = torch.eye(gram.shape[0], dtype=U.dtype, device=U.device)
        losses.append((gram - identity).square().mean())
    if not losses:
        raise ValueError("the orthogonal loss needs at least one matrix, got none")
    return torch.stack(losses).mean()
