"""Random numbers that belong to a sample, not to a process.

Every draw is a function of the seed, of what it is for, of the step and of the sample's place in
the joint batch. A run that is resumed, or that goes on with another number of processes, draws
the same numbers. They come from NumPy's Philox, a counter-based generator: the four coordinates
are its key and counter, so distinct samples have distinct streams by construction.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What a draw is for; each purpose has streams of its own."""

    ORDER = 0
    FLIP = 1
    POSTERIOR = 2
    LATENT = 3
    AUGMENT_REAL = 4
    AUGMENT_FAKE = 5
    GENERATOR_LATENT = 6
    GENERATOR_AUGMENT = 7
    MIXING = 8
    DIRECTION = 9
    AXIS = 10
    VARIATION = 11
    PERMUTATION = 12
    SHIFT = 13
    CUT = 14
    MIXUP = 15


def stream(seed: int, purpose: Purpose, step: int, sample: int) -> np.random.Generator:
    """The generator of one sample's draws.

    Args:
        seed: The run's seed, from 0.
        purpose: What the draws are for.
        step: The optimizer step, or the epoch for `Purpose.ORDER`.
        sample: The sample's place in the joint batch of all processes.

    Examples:
        >>> a, b = (stream(0, Purpose.LATENT, 7, 3).standard_normal(2) for _ in range(2))
        >>> (a == b).all()
        np.True_
    """
    # The first word of the counter advances with the draws, the second is its carry.
    bits = np.random.Philox(key=[seed, purpose], counter=[0, 0, sample, step])
    return np.random.Generator(bits)


def normal(seed: int, purpose: Purpose, step: int, samples: Sequence[int], dim: int) -> Tensor:
    """Standard normal numbers `(len(samples), dim)`, one row per sample, in float32."""
    rows = [stream(seed, purpose, step, i).standard_normal(dim, dtype=np.float32) for i in samples]
    return torch.from_numpy(np.stack(rows))


def uniform(seed: int, purpose: Purpose, step: int, samples: Sequence[int], dim: int) -> Tensor:
    """Uniform numbers in `[0, 1)`, `(len(samples), dim)`, one row per sample, in float32."""
    rows = [stream(seed, purpose, step, i).random(dim, dtype=np.float32) for i in samples]
    return torch.from_numpy(np.stack(rows))
