"""The latents that traversals of a generator start from."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from disentangle.models import Generator
from disentangle.models.evaluation_mode import device_of, evaluation_mode


def choose_starts(
    generator: Generator, latents: Tensor | None, *, samples: int, seed: int
) -> Tensor:
    """Latents `(S, D)` where the generator computes: the given ones, or draws from its prior.

    Args:
        generator: With a prior.
        latents: Shape `(S, D)`, or None for draws.
        samples: `S` of the draws.
        seed: Of the draws.

    Raises:
        ValueError: If there is no draw to make.
    """
    if latents is None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        latents = generator.sample_latents(samples, torch.Generator().manual_seed(seed))
    return latents.to(device_of(generator))


@contextmanager
def being_looked_at(generator: Generator) -> Iterator[None]:
    """A generator that is a module is in evaluation mode while inside, as before afterwards."""
    if isinstance(generator, nn.Module):
        with evaluation_mode(generator):
            yield
    else:
        yield
