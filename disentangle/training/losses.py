"""The terms of a VAE's objective as functions of network outputs."""

import math

from torch import Tensor
from torch.nn import functional


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """`KL(N(mean, variance) ‖ N(0, I))` of each code, averaged over the batch: `(K,)`, in nats.

    Source: Kingma and Welling, https://arxiv.org/abs/1312.6114, appendix B.

    Examples:
        >>> import torch
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
