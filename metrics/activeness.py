"""Activeness of latent axes.

Peebles, Peebles, Zhu, Efros and Torralba, The Hessian Penalty: A Weak Prior for Unsupervised
Disentanglement, ECCV 2020, https://arxiv.org/abs/2008.10599.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from disentangle.metrics.decoding import CheckedDecoder
from disentangle.metrics.inputs import as_floating, as_numbers, check_at_least, check_real
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class ActivenessResult(Result):
    """Result of `activeness`.

    Attributes:
        score: Mean over the axes.
        per_axis: Activeness of each axis, shape `(A,)`, in squared units of the images.
        standard_errors: Standard errors of `per_axis`, over the base latents, shape `(A,)`; NaN
            with one latent.
        caveat: Says so if the images look like `[0, 1]`, which quarters the activeness; else empty.
    """

    undefined = frozenset({"standard_errors"})

    score: float
    per_axis: np.ndarray
    standard_errors: np.ndarray
    caveat: str = ""


def activeness(
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    directions: Tensor,
    *,
    std: float | Sequence[float] | Tensor = 1.0,
    values: Sequence[float] = (-2.0, 0.0, 2.0),
    batch_size: int = 64,
) -> ActivenessResult:
    """Variance of the image under each latent axis alone.

    Peebles et al. 2020, https://arxiv.org/abs/2008.10599: the component of a latent along the axis
    is replaced by each of `values` in turn; the variance of each pixel over them is averaged over
    pixels, channels and base latents.

    Range: from 0, an axis that does nothing, to at most 4/3 for images in `[-1, 1]` and three
    values (every pixel flips between black and white); usual axes have 0.001 to 0.1.

    Blind to meaning: a large object that moves scores more than a face that changes its identity,
    and entangled axes score as high as disentangled ones. It tells dead axes from live ones, and
    ranks the axes of one generator; between generators it compares contrast as well.

    Protocol: that of the Hessian Penalty and OroJaR: values −2, 0 and 2 standard deviations,
    unbiased variance, 300 base latents drawn from the prior by the caller. It is deterministic
    given those. A dead coordinate axis gets exactly 0 from a decoder that treats the images of a
    batch alike; along a direction with several components, rounding of the latent leaves ~1e-14.

    Args:
        decode: Gives images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`; called without a
            gradient, for the first batch twice. It must treat equal latents alike: fix its noise.
        latents: Base latents of shape `(N, D)`.
        directions: Unit vectors of shape `(A, D)`.
        std: Standard deviation of the prior along all directions, or along each of the `A`.
        values: At least two values, in standard deviations.
        batch_size: Images decoded at once, or as many as there are values.

    Raises:
        ValueError: If shapes do not fit, a direction has not the length 1, there are fewer than
            two values, an image is not finite or beyond `[-1, 1]`, or the images of a batch differ
            when it is decoded again.

    Examples:
        >>> decode = lambda z: z[:, :2, None, None].tanh()  # images of two pixels
        >>> latents = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
        >>> activeness(decode, latents, torch.eye(3)).per_axis.round(3)
        array([0.465, 0.465, 0.   ])
    """
    deviations = as_numbers("values", values)
    check_at_least(2, **{"the number of values": deviations.size})
    check_at_least(1, batch_size=batch_size)
    _check_latents(latents, directions)
    directions = directions.to(latents)
    stds = _spread(std, len(directions)).to(latents)
    amounts = stds[:, None] * latents.new_tensor(deviations)  # (A, T)
    axes, bases, checked = len(directions), len(latents), CheckedDecoder(decode)
    variances = torch.empty(axes * bases, dtype=torch.float64)
    for rows in torch.arange(axes * bases).split(max(1, batch_size // deviations.size)):
        axis, base = rows // bases, rows % bases
        z, d = latents[base], directions[axis]  # (B, D)
        fixed = z - (z * d).sum(dim=1, keepdim=True) * d
        moved = fixed[:, None] + amounts[axis][..., None] * d[:, None]  # (B, T, D)
        variances[rows] = _image_variance(checked(moved.flatten(0, 1)), deviations.size)
    per_base = variances.view(axes, bases).numpy()  # (A·N,) → (A, N)
    spread = per_base.std(axis=1, ddof=1) if bases > 1 else np.full(axes, np.nan)
    return ActivenessResult(
        score=float(per_base.mean()),
        per_axis=per_base.mean(axis=1),
        standard_errors=spread / np.sqrt(bases),
        caveat=checked.caveat,
    )


def _image_variance(images: Tensor, values: int) -> Tensor:
    """Variance over each `T` values, mean over pixels, of images `(B·T, C, H, W)`: shape `(B,)`."""
    pixels = images.double().unflatten(0, (-1, values)).flatten(2)  # (B, T, C·H·W)
    return pixels.var(dim=1).mean(dim=1).cpu()


def _check_latents(latents: Tensor, directions: Tensor) -> None:
    check_real("latents", latents)
    check_real("directions", directions)
    if latents.ndim != 2 or len(latents) == 0 or not latents.is_floating_point():
        raise ValueError(
            f"latents must be floating-point of shape (N, D) with N ≥ 1, got {latents.dtype} of "
            f"shape {tuple(latents.shape)}"
        )
    if directions.ndim != 2 or len(directions) == 0 or directions.shape[1] != latents.shape[1]:
        raise ValueError(
            f"directions must have the shape (A, {latents.shape[1]}) with A ≥ 1, "
            f"got {tuple(directions.shape)}"
        )
    lengths = directions.double().norm(dim=1)
    if not ((lengths - 1).abs() < 1e-3).all():
        raise ValueError(f"directions must have length 1, got lengths {lengths.tolist()}")


def _spread(std: float | Sequence[float] | Tensor, axes: int) -> Tensor:
    """The standard deviation of each axis, shape `(A,)`."""
    stds = torch.from_numpy(as_floating("std", as_numbers("std", std)).astype(np.float64))
    if stds.ndim > 1 or (stds.ndim == 1 and len(stds) != axes):
        raise ValueError(f"std must be a number or {axes} numbers, got {tuple(stds.shape)}")
    return stds.expand(axes)
