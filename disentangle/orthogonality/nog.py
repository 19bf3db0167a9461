"""Nearest orthogonal gradient (NOG).

Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from disentangle.distributed.dtensor import is_sharded, shard_like
from disentangle.linalg import polar_factor, polar_factors
from disentangle.linalg.primitives import reciprocal
from disentangle.orthogonality.parameters import as_matrix
from disentangle.orthogonality.spectral_norm import widen

NogScale = Literal["unit", "gradient"]
NOG_SCALES: tuple[str, ...] = get_args(NogScale)


def nearest_orthogonal_gradient(gradient: Tensor, *, scale: NogScale = "unit") -> Tensor:
    """NOG: the polar factor of a gradient taken as a matrix.

    As published, its singular values are 1 and the magnitude of the gradient is discarded: of a
    gradient of rank r the Frobenius norm becomes `√r`. With `scale="gradient"` the result is
    `polar(G) · ‖G‖_F / ‖polar(G)‖_F`, orthogonal too and as long as the gradient.

    A gradient of zero stays zero, and directions without gradient stay without (see
    `polar_factor`). A gradient with any entry that is not finite is passed through untouched, so
    that whoever looks for overflow still sees it. Differentiable once.

    Of a DTensor it is that of the full matrix, in the placements of the DTensor: every process
    gathers the matrix and must call this.

    Source: https://arxiv.org/abs/2207.02119; the kept norm is not published.

    Args:
        gradient: As `as_matrix` takes it, floating point.
        scale: `unit` or `gradient`.

    Returns:
        The shape and dtype of `gradient`.

    Raises:
        ValueError: If `gradient` is not dense or not floating point, or has fewer than 2
            dimensions, or `scale` is unknown.

    Examples:
        >>> gradient = torch.tensor([[4.0, 0.0], [0.0, -3.0]])
        >>> nearest_orthogonal_gradient(gradient)
        tensor([[ 1.,  0.],
                [ 0., -1.]])
        >>> nearest_orthogonal_gradient(gradient, scale="gradient").norm()
        tensor(5.)
    """
    _check_scale(scale)
    if is_sharded(gradient):
        full = nearest_orthogonal_gradient(gradient.full_tensor(), scale=scale)
        return shard_like(full, gradient)
    return _in_place_of(gradient, polar_factor(as_matrix(gradient)), scale)


def nearest_orthogonal_gradients(
    gradients: Sequence[Tensor], *, scale: NogScale = "unit"
) -> list[Tensor]:
    """NOG of several gradients, which may share kernels; without a derivative.

    Args:
        gradients: Each as for `nearest_orthogonal_gradient`.
        scale: As there, of all.

    Returns:
        What `nearest_orthogonal_gradient` gives of each, up to rounding.

    Raises:
        ValueError: As `nearest_orthogonal_gradient`.

    Examples:
        >>> nearest_orthogonal_gradients([torch.tensor([[5.0]]), torch.tensor([[-0.1], [0.0]])])
        [tensor([[1.]]), tensor([[-1.], [ 0.]])]
    """
    _check_scale(scale)
    results = list(gradients)
    whole = [i for i, gradient in enumerate(gradients) if not is_sharded(gradient)]
    polars = polar_factors([as_matrix(gradients[i]) for i in whole])
    for i, polar in zip(whole, polars, strict=True):
        results[i] = _in_place_of(gradients[i], polar, scale)
    for i, gradient in enumerate(gradients):
        if is_sharded(gradient):  # one full matrix at a time
            results[i] = nearest_orthogonal_gradient(gradient, scale=scale)
    return results


def _in_place_of(gradient: Tensor, polar: Tensor, scale: NogScale) -> Tensor:
    """The result for a gradient, in its shape; the gradient itself where that is not finite."""
    if scale == "gradient":
        norm, length = (torch.linalg.vector_norm(x, dtype=torch.float64) for x in (gradient, polar))
        # The factor can be beyond the range of float16, which the product is not.
        polar = (widen(polar) * (norm * reciprocal(length))).to(polar.dtype)
    # One entry tells: all of it is not a number if any of the gradient is not finite.
    lost = polar[:1, :1].isnan()
    return torch.where(lost, as_matrix(gradient), polar).reshape(gradient.shape)


def _check_scale(scale: str) -> None:
    if scale not in NOG_SCALES:
        choices = ", ".join(NOG_SCALES)
        raise ValueError(f"the scale of NOG must be one of {choices}, got {scale!r}")
