"""Mixup: training on mixtures of two images and of their classes."""

import torch
from torch import Tensor

from disentangle.training.batches import Batch
from disentangle.training.rng import Purpose, stream


def mix(batch: Batch, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Each image mixed with the one before it in the batch, whose order is random already.

    One share `λ` from `Beta(α, α)` serves the whole step, in every process; the partners are of the
    process's own part of the batch.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
    https://arxiv.org/abs/1710.09412, eq. 1.

    Args:
        batch: With labels.
        alpha: Positive.

    Returns:
        The images `(N, C, H, W)`, the classes `(N,)` of what is mixed in, and the share `λ` of what
        was there.
    """
    assert batch.labels is not None
    share = float(stream(batch.seed, Purpose.MIXUP, batch.step, 0).beta(alpha, alpha))
    images = torch.lerp(batch.images.roll(1, 0), batch.images, share)
    return images, batch.labels.roll(1, 0), share
