"""Base latents of the traversals of a generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from disentangle.models import Generator
from disentangle.models.evaluation_mode import device_of, evaluation_mode


def choose_starts(
    generator: Generator, latents: Tensor | None, *, samples: int, seed: int
) -> Tensor:
    """Return given latents or draws from the prior, `(S, D)`, on the generator's device.

    Args:
        generator: Generator to draw from.
        latents: Latents `(S, D)`, or None for draws.
        samples: Number `S` of draws.
        seed: Seed for the draws.

    Raises:
        ValueError: If `samples` is not positive.
    """
    if latents is None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        latents = generator.sample_latents(samples, torch.Generator().manual_seed(seed))
    return latents.to(device_of(generator))


@contextmanager
def being_looked_at(generator: Generator) -> Iterator[None]:
    """Keep a generator that is a module in evaluation mode, and restore its mode afterwards."""
    if isinstance(generator, nn.Module):
        with evaluation_mode(generator):
            yield
    else:
        yield
