"""Random numbers that belong to a sample, not to a process.

Every draw is a function of the seed, its purpose, the step and the sample's position in the joint
batch. A run that is resumed, even with another number of processes, draws the same numbers. They
come from NumPy's Philox, a counter-based generator: the four coordinates are its key and counter,
so distinct samples have distinct streams by construction.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """Purpose of a draw; each has streams of its own."""

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
    """Return the random generator of one sample.

    Args:
        seed: Seed of the run, non-negative.
        purpose: Purpose of the draws.
        step: Optimizer step, or the epoch for `Purpose.ORDER`.
        sample: Position of the sample in the joint batch of all processes.

    Examples:
        >>> a, b = (stream(0, Purpose.LATENT, 7, 3).standard_normal(2) for _ in range(2))
        >>> (a == b).all()
        np.True_
    """
    # The first word of the counter advances with the draws, and carries into the second.
    bits = np.random.Philox(key=[seed, purpose], counter=[0, 0, sample, step])
    return np.random.Generator(bits)


def normal(seed: int, purpose: Purpose, step: int, samples: Sequence[int], dim: int) -> Tensor:
    """Draw standard normal float32 numbers `(len(samples), dim)`, one row per sample."""
    rows = [stream(seed, purpose, step, i).standard_normal(dim, dtype=np.float32) for i in samples]
    return torch.from_numpy(np.stack(rows))


def uniform(seed: int, purpose: Purpose, step: int, samples: Sequence[int], dim: int) -> Tensor:
    """Draw uniform float32 numbers in `[0, 1)`, `(len(samples), dim)`, one row per sample."""
    rows = [stream(seed, purpose, step, i).random(dim, dtype=np.float32) for i in samples]
    return torch.from_numpy(np.stack(rows))
