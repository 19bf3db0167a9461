"""Batches of training images, each with its own random numbers."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Sampler

from disentangle.config import RunConfig
from disentangle.data import ImageData, LabelledImages, scale_pixels
from disentangle.data.workers import read_batches
from disentangle.training import rng
from disentangle.training.rng import Purpose


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's share of the joint batch of a step.

    Attributes:
        images: `(N, C, H, W)` in `[-1, 1]`, on the training device.
        step: Optimizer step, from 1.
        samples: Positions of the images in the joint batch of all processes.
        seed: Seed of the run.
        labels: Class of each image, int64 `(N,)`, if the data set has classes.
    """

    images: Tensor
    step: int
    samples: range
    seed: int
    labels: Tensor | None = None

    def normal(self, purpose: Purpose, dim: int) -> Tensor:
        """Return standard normal numbers `(N, dim)` for these samples."""
        return self._draw(rng.normal, purpose, dim)

    def uniform(self, purpose: Purpose, dim: int) -> Tensor:
        """Return uniform numbers in `[0, 1)`, `(N, dim)`, for these samples."""
        return self._draw(rng.uniform, purpose, dim)

    def split(self, parts: int) -> list["Batch"]:
        """Split the batch into `parts` of equal size, for gradient accumulation."""
        size = len(self.samples) // parts
        return [self._cut(slice(i, i + size)) for i in range(0, len(self.samples), size)]

    def _cut(self, part: slice) -> "Batch":
        labels = None if self.labels is None else self.labels[part]
        return replace(self, images=self.images[part], samples=self.samples[part], labels=labels)

    def _draw(self, draw: Callable[..., Tensor], purpose: Purpose, dim: int) -> Tensor:
        numbers = draw(self.seed, purpose, self.step, self.samples, dim)
        if self.images.is_cuda:
            # A copy from pageable memory can make the host wait for the GPU.
            numbers = numbers.pin_memory()
        return numbers.to(self.images.device, non_blocking=True)


def images_at_once(run: RunConfig, processes: int) -> int:
    """Return the number of images in a forward pass of one process."""
    return run.training.batch_size // (processes * run.training.accumulation)


def share_batch(run: RunConfig, size: int, accelerator: Accelerator) -> range:
    """Return the positions of this process's images in the joint batch.

    Raises:
        ValueError: If the batch is larger than the data set, or cannot be divided equally.
    """
    joint, accumulation = run.training.batch_size, run.training.accumulation
    if joint > size:
        raise ValueError(f"training.batch_size is {joint}, but the data set has {size} images only")
    processes = accelerator.num_processes
    if joint % (processes * accumulation):
        raise ValueError(
            f"training.batch_size must be a multiple of {processes} processes × {accumulation} "
            f"accumulation steps, got {joint}"
        )
    share = joint // processes
    return range(joint)[accelerator.process_index * share :][:share]


class StepSampler(Sampler[list[int]]):
    """Sampler of the indices of one process's share of the joint batch, from `first` to `last`.

    The joint batches of successive steps go through successive shuffles of the data set. The
    indices of step N are a function of the seed and N alone, so there is no state to save.
    """

    def __init__(
        self, *, size: int, batch_size: int, samples: range, seed: int, first: int, last: int
    ) -> None:
        self.size, self.batch_size, self.samples, self.seed = size, batch_size, samples, seed
        self.steps = range(first, last + 1)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            start = (step - 1) * self.batch_size
            positions = (divmod(start + i, self.size) for i in self.samples)
            yield [int(shuffled(self.seed, epoch, self.size)[place]) for epoch, place in positions]


@lru_cache(maxsize=2)  # a batch may span the end of an epoch
def shuffled(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the order `(size,)` of the data set in an epoch."""
    return rng.stream(seed, Purpose.ORDER, epoch, 0).permutation(size)


def load_batches(
    data: ImageData, sampler: StepSampler, *, device: torch.device, workers: int
) -> Generator[Batch, None, None]:
    """Yield the batches of a sampler's steps, each decoded as a whole by a worker process.

    Args:
        data: Data set, which fetches a list of indices as one uint8 tensor `(N, C, H, W)`.
        sampler: Sampler of the indices of each step.
        device: Device of the batches; images are copied to it as uint8.
        workers: Number of worker processes; 0 decodes in this process.

    Raises:
        OSError: If images cannot be read, or a process that decodes them has ended.
    """
    labels = torch.from_numpy(data.labels) if isinstance(data, LabelledImages) else None
    with closing(read_batches(data, sampler, workers)) as decoded:
        for step, indices, pixels in zip(sampler.steps, sampler, decoded, strict=True):
            images = scale_pixels(_send(pixels, device))
            classes = None if labels is None else _send(labels[indices], device)
            yield Batch(images, step, sampler.samples, sampler.seed, classes)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, without waiting for a GPU."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)
