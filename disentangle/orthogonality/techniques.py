"""The techniques that are functions of tensors: NOG, OLR and OL.

Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119, and TPAMI 2022,
https://arxiv.org/abs/2212.05599.
"""

from collections.abc import Iterable
from typing import Literal, get_args

import torch
from torch import Tensor

from disentangle.linalg import polar_factor
from disentangle.orthogonality.parameters import as_matrix

# In the order in which they act: the optimal learning rate is that of the gradient in use.
OptimizerTechnique = Literal["nog", "olr"]
LossTechnique = Literal["ol"]
Technique = Literal[OptimizerTechnique, LossTechnique]
OPTIMIZER_TECHNIQUES: tuple[str, ...] = get_args(OptimizerTechnique)
LOSS_TECHNIQUES: tuple[str, ...] = get_args(LossTechnique)


def nearest_orthogonal_gradient(gradient: Tensor) -> Tensor:
    """NOG: the polar factor of a gradient taken as a matrix. Its magnitude is discarded.

    A gradient of zero stays zero, and directions without gradient stay without (see
    `polar_factor`). A gradient with any entry that is not finite is passed through untouched, so
    that whoever looks for overflow still sees it.

    Source: https://arxiv.org/abs/2207.02119.

    Args:
        gradient: As `as_matrix` takes it, floating point.

    Returns:
        The shape and dtype of `gradient`.

    Raises:
        ValueError: If `gradient` has fewer than 2 dimensions or is not floating point.

    Examples:
        >>> nearest_orthogonal_gradient(torch.tensor([[5.0, 0.0], [0.0, -0.1]]))
        tensor([[ 1.,  0.],
                [ 0., -1.]])
    """
    matrix = as_matrix(gradient)
    polar = polar_factor(matrix)
    # One entry tells: all of it is not a number if any of the gradient is not finite.
    lost = polar[:1, :1].isnan()
    return torch.where(lost, matrix, polar).reshape(gradient.shape)


def optimal_learning_rate(weight: Tensor, gradient: Tensor, base_rate: float | Tensor) -> Tensor:
    """OLR: the step size that brings the weight nearest to an orthogonal one, never above a base.

    `η = wᵀw·lᵀw / (wᵀw·lᵀl + 2 (lᵀw)²)` for weight `w` and gradient `l` as vectors, if
    `0 < η < base_rate`, else the base rate, as also when a vector is zero or not finite. It is the
    Newton step `−J′(0) / J″(0)` of `J(η) = ‖w − ηl‖⁴`, the paper's approximation to the distance.

    Source: https://arxiv.org/abs/2207.02119.

    Args:
        weight: Any shape.
        gradient: The shape of `weight`; after NOG, if that is used too.
        base_rate: The learning rate not to exceed, a number or a 0-d tensor.

    Returns:
        0-d, float64, on the device of `weight`.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> optimal_learning_rate(torch.tensor([[3.0]]), torch.tensor([[2.0]]), 1.0).item()
        0.5
        >>> optimal_learning_rate(torch.tensor([[3.0]]), torch.tensor([[2.0]]), 0.1).item()
        0.1
    """
    if weight.shape != gradient.shape:
        raise ValueError(
            "weight and gradient must have the same shape, "
            f"got {tuple(weight.shape)} and {tuple(gradient.shape)}"
        )
    w, l = weight.detach().double().flatten(), gradient.detach().double().flatten()  # noqa: E741
    w_norm, l_norm = w.dot(w).sqrt(), l.dot(l).sqrt()
    # The formula divided by (wᵀw)(lᵀl), whose product of four entries leaves the range sooner.
    cosine = l.dot(w) / w_norm / l_norm
    eta = w_norm / l_norm * cosine / (1 + 2 * cosine**2)
    # A comparison with NaN, from a zero or non-finite vector, is false.
    return torch.where((eta > 0) & (eta < base_rate), eta, base_rate)


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
        ValueError: If there is no matrix, or one has fewer than 2 dimensions.

    Examples:
        >>> orthogonal_loss([torch.eye(2), 2 * torch.eye(2)])
        tensor(2.2500)
    """
    losses = []
    for U in map(as_matrix, matrices):
        gram = U @ U.mT if U.shape[0] <= U.shape[1] else U.mT @ U
        identity = torch.eye(gram.shape[0], dtype=U.dtype, device=U.device)
        losses.append((gram - identity).square().mean())
    if not losses:
        raise ValueError("the orthogonal loss needs at least one matrix, got none")
    return torch.stack(losses).mean()
