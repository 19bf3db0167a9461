"""Which images a step trains on, and the random numbers that go with them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from disentangle.config import RunConfig
from disentangle.data import ImageData, LabelledImages, scale_pixels
from disentangle.training import randomness
from disentangle.training.randomness import Purpose
from disentangle.training.workers import begin_worker


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
        return self._draw(randomness.normal, purpose, dim)

    def uniform(self, purpose: Purpose, dim: int) -> Tensor:
        """Uniform numbers in `[0, 1)`, `(N, dim)`, that belong to these samples."""
        return self._draw(randomness.uniform, purpose, dim)

    def split(self, parts: int) -> list["Batch"]:
        """The batch in `parts` of equal size, for gradient accumulation."""
        size = len(self.samples) // parts
        return [self._cut(slice(i, i + size)) for i in range(0, len(self.samples), size)]

    def _cut(self, part: slice) -> "Batch":
        labels = None if self.labels is None else self.labels[part]
        return replace(self, images=self.images[part], samples=self.samples[part], labels=labels)

    def _draw(self, draw: Callable[..., Tensor], purpose: Purpose, dim: int) -> Tensor:
        numbers = draw(self.seed, purpose, self.step, self.samples, dim)
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
    return randomness.stream(seed, Purpose.ORDER, epoch, 0).permutation(size)


def load_batches(
    data: ImageData, sampler: StepSampler, *, device: torch.device, workers: int
) -> Iterator[Batch]:
    """The batches of a sampler's steps, decoded as whole batches by `workers` processes.

    Args:
        data: Fetches a list of indices as one uint8 tensor `(N, C, H, W)`.
        sampler: What each step reads.
        device: Where the images go; they travel as uint8.
        workers: Processes that decode; 0 decodes in this one.

    Raises:
        OSError: If images cannot be read, or a process that decodes them has ended.
    """
    loader = DataLoader(
        _Handing(data),
        batch_sampler=sampler,
        collate_fn=as_fetched,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=begin_worker,
    )
    labels = torch.from_numpy(data.labels) if isinstance(data, LabelledImages) else None
    for step, indices, pixels in zip(sampler.steps, sampler, _read(loader), strict=True):
        images = scale_pixels(pixels.to(device, non_blocking=True))
        classes = None if labels is None else labels[indices].to(device, non_blocking=True)
        yield Batch(images, step, sampler.samples, sampler.seed, classes)


class _Handing(Dataset[Any]):
    """A data set that hands over an error as an item: PyTorch would make a traceback its message.

    Args:
        data: The data set.
    """

    def __init__(self, data: ImageData) -> None:
        self.data = data

    def __getitems__(self, indices: list[int]) -> Tensor | OSError:
        """A batch of the data set, or why it cannot be read."""
        try:
            return self.data.__getitems__(indices)
        except OSError as error:
            return error


def _read(loader: Iterable[Tensor | OSError]) -> Iterator[Tensor]:
    """What a loader gives; an error that it hands over is raised."""
    try:
        for images in loader:
            if isinstance(images, OSError):
                raise images
            yield images
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise OSError(
            f"a process that decodes images ended, for want of memory? {reason}"
        ) from error


def as_fetched(images: Any) -> Any:
    """The batch as the data set gave it, in place of a collation."""
    return images
