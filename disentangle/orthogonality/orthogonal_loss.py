"""Orthogonal loss (OL).

Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from disentangle.linalg.checks import check_matrix
from disentangle.orthogonality.parameters import as_matrix


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
