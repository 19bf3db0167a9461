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
        likelihood: `bernoulli`, of pixels scaled to `[0, 1]`; `gaussian`, with unit variance around
            the reconstruction in `[-1, 1]`; or `laplace`, with unit scale around it.

    Raises:
        ValueError: If the likelihood is unknown.

    Examples:
        >>> import torch
        >>> images = torch.tensor([0.0, 0.5]).view(1, 1, 1, 2)
        >>> reconstruction_loss(torch.zeros(1, 1, 1, 2), images, "laplace")  # 0.5 + 2 log 2
        tensor(1.8863)
    """
    if likelihood == "bernoulli":
        loss = functional.binary_cross_entropy_with_logits(
            logits, (images + 1) / 2, reduction="sum"
        )
        return loss / len(images)
    return error_loss(2 * logits.sigmoid() - 1 - images, likelihood)


def error_loss(errors: Tensor, likelihood: str) -> Tensor:
    """Negative log likelihood of errors, summed over all but the batch, averaged over it, in nats.

    Args:
        errors: Reconstruction minus target, `(N, …)`.
        likelihood: `gaussian`, of unit variance, or `laplace`, of unit scale.

    Raises:
        ValueError: If the likelihood is unknown, or not one of errors.

    Examples:
        >>> import torch
        >>> error_loss(torch.tensor([[2.0], [0.0]]), "laplace")  # 1 + log 2
        tensor(1.6931)
    """
    if likelihood == "gaussian":
        losses = 0.5 * (errors.square() + math.log(2 * math.pi))
    elif likelihood == "laplace":
        losses = errors.abs() + math.log(2)
    else:
        raise ValueError(f"likelihood must be one of gaussian, laplace, got {likelihood!r}")
    return losses.sum() / len(errors)
