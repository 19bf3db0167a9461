"""GAN inversion by optimisation: latents that reconstruct given images, without an encoder.

Source: Zhu, Krähenbühl, Shechtman and Efros, "Generative Visual Manipulation on the Natural Image
Manifold", ECCV 2016, https://arxiv.org/abs/1609.03552, without its encoder and feature network.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

STARTS = 4  # latents that are optimised for each image
POOLINGS = (2, 4, 8)  # sides of the average pooling after which images are compared as well


@dataclass(frozen=True, eq=False)
class Inversion:
    """Result of `invert`.

    Attributes:
        latents: Latents, shape `(N, D)`.
        images: Images of the latents, shape `(N, C, H, W)`.
        errors: Mean squared errors of the pixels, whose range is `[-1, 1]`, shape `(N,)`.
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
    """Find latents whose images are close to given ones, by gradient descent.

    For each image, Adam optimises the best four of the draws. The loss is the mean squared error of
    the pixels, plus that after average pooling by 2, 4 and 8, whose gradient helps where a shape is
    displaced; plus `prior_weight · ‖z‖² / D`, the negative log-density of the prior up to scale.
    The latent with the lowest loss over all steps and starts is returned.

    This finds a local minimum, not the nearest image, and a poor one for an image that the
    generator cannot make: check `images` and `errors`. The result is deterministic given the draws.

    Args:
        decode: Differentiable map from latents `(N, D)` to images `(N, C, H, W)` in `[-1, 1]`.
        images: Images `(N, C, H, W)` in `[-1, 1]`, on the device of the decoder.
        draws: `M` draws from the prior, shape `(M, D)`; more give better starts.
        steps: Number of steps of Adam, at least one.
        learning_rate: Learning rate of Adam, in standard deviations of the prior.
        prior_weight: Weight of the prior, at least 0.

    Raises:
        ValueError: If there is no image or draw, the shapes do not match, or a number is out of
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
    """Return the best latent `(D,)` for an image `(1, C, H, W)`."""

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
    """Return the errors `(N,)` of images `(N, C, H, W)` to one `(1, C, H, W)`, over all scales."""
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
