"""Which images a step trains on, and the random numbers that go with them."""

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
        step: The optimizer step, from 1.
        samples: The places of the images in the joint batch of all processes.
        seed: The run's seed.
        labels: The class of each image, int64 `(N,)`, if the data set has classes.
    """

    images: Tensor
    step: int
    samples: range
    seed: int
    labels: Tensor | None = None

    def normal(self, purpose: Purpose, dim: int) -> Tensor:
        """Standard normal numbers `(N, dim)` that belong to these samples."""
        return self._draw(rng.normal, purpose, dim)

    def uniform(self, purpose: Purpose, dim: int) -> Tensor:
        """Uniform numbers in `[0, 1)`, `(N, dim)`, that belong to these samples."""
        return self._draw(rng.uniform, purpose, dim)

    def split(self, parts: int) -> list["Batch"]:
        """The batch in `parts` of equal size, for gradient accumulation."""
        size = len(self.samples) // parts
        return [self._cut(slice(i, i + size)) for i in range(0, len(self.samples), size)]

    def _cut(self, part: slice) -> "Batch":
        labels = None if self.labels is None else self.labels[part]
        return replace(self, images=self.images[part], samples=self.samples[part], labels=labels)

    def _draw(self, draw: Callable[..., Tensor], purpose: Purpose, dim: int) -> Tensor:
        numbers = draw(self.seed, purpose, self.step, self.samples, dim)
        if self.images.is_cuda:
            # A copy from pageable memory can make the host wait until the GPU has come to it.
            numbers = numbers.pin_memory()
        return numbers.to(self.images.device, non_blocking=True)


def images_at_once(run: RunConfig, processes: int) -> int:
    """How many images a process looks at at once."""
    return run.training.batch_size // (processes * run.training.accumulation)


def share_batch(run: RunConfig, size: int, accelerator: Accelerator) -> range:
    """The places of this process's images in the joint batch.

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
    """For each step from `first` to `last`, the indices of one process's share of the joint batch.

    The joint batches of all steps, one after the other, run through one shuffle of the data set
    after the other. What step N reads is a function of the seed and of N alone, so there is no
    state to save.
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


@lru_cache(maxsize=2)  # a batch may lie across the end of an epoch
def shuffled(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order `(size,)` in which an epoch goes through the data set."""
    return rng.stream(seed, Purpose.ORDER, epoch, 0).permutation(size)


def load_batches(
    data: ImageData, sampler: StepSampler, *, device: torch.device, workers: int
) -> Generator[Batch, None, None]:
    """The batches of a sampler's steps, decoded as whole batches by `workers` processes.

    Args:
        data: Fetches a list of indices as one uint8 tensor `(N, C, H, W)`.
        sampler: What each step reads.
        device: Where the images go; they travel as uint8.
        workers: Processes that decode; 0 decodes in this one.

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
    """Copy a tensor to a device, which goes on with what it does if it is a GPU."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)
