"""Inversion: the latents whose images come nearest to given ones, for models without an encoder.

Zhu, Krähenbühl, Shechtman and Efros, Generative Visual Manipulation on the Natural Image Manifold,
ECCV 2016, https://arxiv.org/abs/1609.03552, without their encoder and their network of features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

STARTS = 4  # latents that are optimised for each image
POOLINGS = (2, 4, 8)  # sides of the squares that images are also compared by the means of


@dataclass(frozen=True, eq=False)
class Inversion:
    """What `invert` found.

    Attributes:
        latents: Shape `(N, D)`.
        images: Their images, shape `(N, C, H, W)`.
        errors: Mean squared difference of the pixels to the given images, shape `(N,)`; images
            range over `[-1, 1]`.
    """

    latents: Tensor
    images: Tensor
    errors: Tensor


def invert(
    decode: Callable[[Tensor], Tensor],
    images: Tensor,
    draws: Tensor,
    *,
    steps: int = 300,
    learning_rate: float = 0.05,
    prior_weight: float = 1e-3,
) -> Inversion:
    """Latents whose images come near to given ones, by gradient descent.

    For each image the best four of the draws are moved by Adam, along the gradient of the squared
    differences of the pixels, plus those of the means over squares of 2, 4 and 8 pixels, which
    reach further when a shape stands beside where it should; plus `prior_weight · ‖z‖² / D`, the
    negative logarithm of the prior's density but for its scale. Of all steps of the four, the
    latent with the least of this sum is kept.

    It finds a local minimum, not the nearest image, and an image that the generator cannot make
    gets a poor one: look at `images` and `errors`. It is deterministic given the draws.

    Args:
        decode: Gives images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`, with a gradient.
        images: Shape `(N, C, H, W)` in `[-1, 1]`, on the device of the decoder.
        draws: `M` draws from the prior, shape `(M, D)`; more find better starts.
        steps: Of Adam, at least one.
        learning_rate: In standard deviations of the prior.
        prior_weight: At least 0.

    Raises:
        ValueError: If there is nothing to invert, the shapes do not fit, or a number is out of its
            range.

    Examples:
        >>> decode = lambda z: z.tanh()[:, :, None, None].expand(-1, -1, 8, 8)
        >>> draws = torch.randn(16, 1, generator=torch.Generator().manual_seed(0))
        >>> found = invert(decode, torch.full((1, 1, 8, 8), 0.5), draws, steps=100)
        >>> round(found.latents.item(), 2), found.errors.item() < 1e-4
        (0.55, True)
    """
    if images.ndim != 4 or draws.ndim != 2 or not len(images) or not len(draws):
        raise ValueError(
            f"images (N, C, H, W) and draws (M, D) are needed, got {tuple(images.shape)} and "
            f"{tuple(draws.shape)}"
        )
    if steps < 1 or learning_rate <= 0 or prior_weight < 0:
        raise ValueError(
            "at least one step, a positive learning_rate and a prior_weight from 0 are needed, got "
            f"{steps}, {learning_rate} and {prior_weight}"
        )
    found = [
        _invert_one(decode, image[None], draws, steps, learning_rate, prior_weight)
        for image in images
    ]
    latents = torch.stack(found)
    with torch.no_grad():
        made = decode(latents)
    errors = (made - images).square().flatten(1).mean(dim=1)
    return Inversion(latents, made, errors)


def _invert_one(
    decode: Callable[[Tensor], Tensor],
    image: Tensor,
    draws: Tensor,
    steps: int,
    learning_rate: float,
    prior_weight: float,
) -> Tensor:
    """The best latent `(D,)` for an image `(1, C, H, W)`."""

    def loss(z: Tensor) -> Tensor:
        return _distance(decode(z), image) + prior_weight * z.square().mean(dim=1)  # (N,)

    with torch.no_grad():
        losses = torch.cat([loss(batch) for batch in draws.split(64)])
    z = draws[losses.argsort()[:STARTS]].clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr=learning_rate)
    best, least = z.detach()[0].clone(), torch.full((), torch.inf, device=z.device)
    for step in range(steps + 1):
        with torch.enable_grad():
            losses = loss(z)
        lowest, k = losses.detach().min(dim=0)
        best = torch.where(lowest < least, z.detach()[k], best)
        least = torch.minimum(lowest, least)
        if step < steps:
            (z.grad,) = torch.autograd.grad(losses.sum(), z)
            optimizer.step()
    return best


def _distance(images: Tensor, target: Tensor) -> Tensor:
    """Squared differences `(N,)` of images `(N, C, H, W)` to one `(1, C, H, W)`, at all scales."""
    if images.shape[1:] != target.shape[1:]:
        raise ValueError(
            f"the images to invert must have the shape (N, {', '.join(map(str, images.shape[1:]))})"
            f" of those that are decoded, got {tuple(target.shape[1:])}"
        )
    difference = images - target
    total = difference.square().flatten(1).mean(dim=1)
    for side in POOLINGS:
        if side <= min(difference.shape[2:]):
            total = total + functional.avg_pool2d(difference, side).square().flatten(1).mean(dim=1)
    return total
