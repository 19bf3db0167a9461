"""Objectives as functions of network outputs."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """What the discriminator minimises, from its logits `(N,)` on real and on made images.

    Args:
        real: Logits of real images.
        fake: Logits of made images.
        kind: `hinge` (Lim and Ye, https://arxiv.org/abs/1705.02894) or `non_saturating`
            (Goodfellow et al., https://arxiv.org/abs/1406.2661).
    """
    if kind == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def generator_loss(fake: Tensor, kind: str, *, hinged: bool = False) -> Tensor:
    """What the generator minimises, from the discriminator's logits `(N,)` on made images.

    Args:
        fake: Logits of made images.
        kind: As for `discriminator_loss`.
        hinged: With `hinge`, `E relu(1 − D)` in place of `−E D`.
    """
    if kind == "hinge":
        return functional.relu(1 - fake).mean() if hinged else -fake.mean()
    return functional.softplus(-fake).mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """`E‖∇D‖²` over the images, without the factor ½.

    Source: Mescheder, Geiger and Nowozin, ICML 2018, https://arxiv.org/abs/1801.04406, eq. 9.

    Args:
        logits: `D(images)`, of shape `(N,)`.
        images: `(N, C, H, W)`, with `requires_grad`.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """`KL(N(mean, variance) ‖ N(0, I))` of each code, averaged over the batch: `(K,)`, in nats.

    Source: Kingma and Welling, https://arxiv.org/abs/1312.6114, appendix B.

    Examples:
        >>> gaussian_divergence(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2))
        tensor([0.5000, 0.0000])
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(0)


def reconstruction_loss(logits: Tensor, images: Tensor, likelihood: str) -> Tensor:
    """Negative log likelihood of images, summed over pixels, averaged over the batch, in nats.

    Args:
        logits: Reconstruction before the sigmoid, `(N, C, H, W)`.
        images: `(N, C, H, W)` in `[-1, 1]`.
        likelihood: `bernoulli`, of pixels scaled to `[0, 1]`; or `gaussian`, with unit variance
            around the reconstruction in `[-1, 1]`.
    """
    if likelihood == "bernoulli":
        loss = functional.binary_cross_entropy_with_logits(
            logits, (images + 1) / 2, reduction="sum"
        )
    else:
        error = (2 * logits.sigmoid() - 1 - images).square()
        loss = 0.5 * (error + math.log(2 * math.pi)).sum()
    return loss / len(images)
