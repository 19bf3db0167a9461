"""Looking at images through a network, shared by the processes."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from disentangle.evaluation.processes import BATCH, DECODED, Processes
from disentangle.evaluation.progress import Progress
from disentangle.metrics import Features
from disentangle.metrics.features import (
    FeatureNetwork,
    PerceptualDistance,
    describe,
)


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

    def look(part: Tensor) -> Tensor:
        images = make_images(part)
        features, lowest = network(images), images.flatten(1).amin(dim=1, keepdim=True)
        return torch.cat([features, lowest.to(features)], dim=1)  # (n, D), (n, 1) -> (n, D + 1)

    blocks = []
    for block in rows.split(BATCH):
        blocks.append(processes.map(look, block, chunk=DECODED).cpu().numpy())
        progress.advance(len(block))
    found = np.concatenate(blocks)
    shape = tuple(make_images(rows[:1]).shape[1:])
    origin = replace(describe(network), image_shape=shape, lowest=float(found[:, -1].min()))
    return Features(found[:, :-1], origin)


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
