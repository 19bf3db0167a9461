"""Codes of the images of a data set, each encoded once."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from disentangle.evaluation.processes import ENCODED, Processes
from disentangle.evaluation.progress import Progress

BLOCK = 4096  # images between two movements of a progress bar


class EncodedImages:
    """The rows that an encoder gives for the images of a data set, each encoded once, ever.

    Every process must ask for the same images in the same order: encoding is shared.

    Args:
        size: Images in the data set.
        encode: Gives a tensor `(n, W)` for the indices `(n,)` of images.
        processes: Which encode.
        progress: Counts images.
    """

    def __init__(
        self,
        size: int,
        encode: Callable[[Tensor], Tensor],
        *,
        processes: Processes,
        progress: Progress,
    ) -> None:
        self.encode, self.processes, self.progress = encode, processes, progress
        self.known = np.zeros(size, dtype=bool)
        self.rows = np.empty((size, 0), dtype=np.float32)

    @torch.no_grad()
    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """The rows `(N, W)` of images `(N,)`."""
        for start in range(0, len(indices), BLOCK):
            block = indices[start : start + BLOCK]
            new = np.unique(block[~self.known[block]])
            if len(new):
                self._add(new)
            self.progress.advance(len(block))
        return self.rows[indices]

    def _add(self, new: np.ndarray) -> None:
        found = self.processes.map(self.encode, torch.from_numpy(new), chunk=ENCODED)
        if not self.known.any():
            self.rows = np.empty((len(self.known), found.shape[1]), dtype=np.float32)
        self.rows[new], self.known[new] = found.float().cpu().numpy(), True
