"""Adversarial losses and gradient penalties as functions of a discriminator's logits."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


@dataclass(frozen=True)
class AdversarialLoss:
    """Terms of the two losses as functions of a single logit.

    Attributes:
        real: Term of the discriminator's loss for a real image.
        fake: Term of the discriminator's loss for a generated image.
        generator: Term of the generator's loss for a generated image.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LOSSES = {
    "hinge": AdversarialLoss(
        real=lambda logit: relu(1 - logit),
        fake=lambda logit: relu(1 + logit),
        generator=torch.neg,
    ),
    "non_saturating": AdversarialLoss(
        real=lambda logit: softplus(-logit),
        fake=softplus,
        generator=lambda logit: softplus(-logit),
    ),
    "bce": AdversarialLoss(
        real=lambda logit: 0.5 * softplus(-logit),
        fake=lambda logit: 0.5 * softplus(logit),
        generator=lambda logit: softplus(-logit),
    ),
    "lsgan": AdversarialLoss(
        real=lambda logit: 0.5 * (logit - 1).square(),
        fake=lambda logit: 0.5 * logit.square(),
        generator=lambda logit: 0.5 * (logit - 1).square(),
    ),
    "wasserstein": AdversarialLoss(
        real=torch.neg,
        fake=torch.positive,
        generator=torch.neg,
    ),
}


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Loss of the discriminator, from its logits `(N,)` on real and on generated images.

    - `hinge`: Lim and Ye, https://arxiv.org/abs/1705.02894.
    - `non_saturating`: cross-entropy, real plus generated; Goodfellow et al.,
      https://arxiv.org/abs/1406.2661.
    - `bce`: the same with `½ (real + generated)`, as the simple GANs of OroJaR and NOG are trained.
      With Adam the ½ alone has no effect, but it doubles the weight of a penalty beside it.
    - `lsgan`: least squares, `½ E(D(x) − 1)² + ½ E D(x̃)²`; Mao et al., ICCV 2017,
      https://arxiv.org/abs/1611.04076, eq. 9.
    - `wasserstein`: `E D(x̃) − E D(x)`; Arjovsky, Chintala and Bottou, ICML 2017,
      https://arxiv.org/abs/1701.07875. It has no minimum without a bound on the slope of the
      discriminator: with `gradient_penalty` of weight 10 beside it, this is WGAN-GP.

    Args:
        real: Logits of real images.
        fake: Logits of generated images.
        kind: Kind of loss, one of the above.

    Raises:
        ValueError: If `kind` is unknown.

    Examples:
        >>> discriminator_loss(torch.tensor([0.5]), torch.tensor([2.0]), "lsgan")
        tensor(2.1250)
    """
    loss = _choose(kind)
    return loss.real(real).mean() + loss.fake(fake).mean()


def generator_loss(fake: Tensor, kind: str, *, hinged: bool = False) -> Tensor:
    """Loss of the generator, from the discriminator's logits `(N,)` on generated images.

    Args:
        fake: Logits of generated images.
        kind: Kind of loss, as in `discriminator_loss`; `non_saturating` and `bce` are the same
            here.
        hinged: With `hinge`, use `E relu(1 − D)` in place of `−E D`.

    Raises:
        ValueError: If `kind` is unknown, or `hinged` is set for another kind than `hinge`.

    Examples:
        >>> generator_loss(torch.tensor([3.0, -1.0]), "wasserstein")
        tensor(-1.)
    """
    loss = _choose(kind)
    if not hinged:
        return loss.generator(fake).mean()
    if kind != "hinge":
        raise ValueError(f"hinged requires the loss hinge, got {kind!r}")
    return relu(1 - fake).mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """`E‖∇D‖²` over the images, without the factor ½.

    Source: Mescheder, Geiger and Nowozin, ICML 2018, https://arxiv.org/abs/1801.04406, eq. 9.

    Args:
        logits: `D(images)`, of shape `(N,)`.
        images: `(N, C, H, W)`, with `requires_grad`.
    """
    return _slopes(logits, images).square().sum(1).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """`E(‖∇D‖ − 1)²` over images between real and generated ones: see `mix_images`.

    It holds the slope of the discriminator at 1 there, whatever the loss beside it. Each image must
    have a logit of its own: with a BatchNorm in the discriminator the gradient is another.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017,
    https://arxiv.org/abs/1704.00028, eq. 3.

    Args:
        logits: `D(images)`, of shape `(N,)`.
        images: `(N, C, H, W)`, with `requires_grad`.

    Examples:
        >>> real, fake = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
        >>> mixed = mix_images(real, fake, torch.tensor([0.25, 0.5]))
        >>> gradient_penalty(mixed.sum((1, 2, 3)), mixed).item()  # a slope of √16
        9.0
    """
    return (torch.linalg.vector_norm(_slopes(logits, images), dim=1) - 1).square().mean()


def mix_images(real: Tensor, fake: Tensor, mixing: Tensor) -> Tensor:
    """Images `ε x + (1 − ε) x̃` on the lines between real and generated ones.

    Args:
        real: Real images `x`, `(N, C, H, W)`.
        fake: Generated images `x̃`, of the same shape.
        mixing: The share `ε` of the real image in each, `(N,)`, uniform in `[0, 1]`.

    Returns:
        `(N, C, H, W)`, detached from the generator, with `requires_grad`.

    Raises:
        ValueError: If the shapes do not match.

    Examples:
        >>> real, fake = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
        >>> mix_images(real, fake, torch.tensor([0.25]))
        tensor([[[[0.7500, 0.7500]]]], requires_grad=True)
    """
    if real.shape != fake.shape:
        shapes = f"{tuple(real.shape)} and {tuple(fake.shape)}"
        raise ValueError(f"real and fake images must have the same shape, got {shapes}")
    if mixing.shape != real.shape[:1]:
        raise ValueError(
            f"mixing must have one number per image, ({len(real)},), got {tuple(mixing.shape)}"
        )
    shares = mixing[:, None, None, None]  # (N,) -> (N, 1, 1, 1)
    return torch.lerp(fake.detach(), real.detach(), shares).requires_grad_()


def _slopes(logits: Tensor, images: Tensor) -> Tensor:
    """Gradient of each image's logit, flattened: `(N, C·H·W)`."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.flatten(1)


def _choose(kind: str) -> AdversarialLoss:
    if kind not in LOSSES:
        raise ValueError(f"the adversarial loss must be one of {', '.join(LOSSES)}, got {kind!r}")
    return LOSSES[kind]
