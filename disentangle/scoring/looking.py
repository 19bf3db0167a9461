"""Looking at images through a network, shared by the processes."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from disentangle.metrics import Features
from disentangle.metrics.features import (
    FeatureNetwork,
    FeatureOrigin,
    PerceptualDistance,
    describe,
)
from disentangle.scoring.processes import BATCH, DECODED, Processes
from disentangle.scoring.progress import Progress


@torch.no_grad()
def look_at(
    make_images: Callable[[Tensor], Tensor],
    rows: Tensor,
    network: FeatureNetwork,
    *,
    processes: Processes,
    progress: Progress,
) -> Features:
    """Features of images; every process must ask for the same.

    Args:
        make_images: Gives images `(n, C, H, W)` in `[-1, 1]` of some of the rows.
        rows: Latents or indices, of `N ≥ 1` images.
        network: Gives their features.
        processes: Which make and look at them.
        progress: Counts images.
    """
    blocks = []
    for block in rows.split(BATCH):
        found = processes.map(lambda part: network(make_images(part)), block, chunk=DECODED)
        blocks.append(found.cpu().numpy())
        progress.advance(len(block))
    origin = describe(network)
    shape = tuple(make_images(rows[:1]).shape[1:])
    return Features(np.concatenate(blocks), FeatureOrigin(origin.network, origin.caveat, shape))


class SharedDistance:
    """A perceptual distance whose pairs the processes divide among themselves.

    Args:
        network: The distance, where it computes.
        processes: Which share the work.
    """

    def __init__(self, network: PerceptualDistance, processes: Processes) -> None:
        self.network, self.processes = network, processes
        origin = describe(network)
        self.name, self.caveat, self.comparable = origin.network, origin.caveat, not origin.caveat

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """The distances `(N,)` of images `(N, C, H, W)`."""
        return self.processes.map(self.network, images, others, chunk=DECODED)
