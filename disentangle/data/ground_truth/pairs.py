"""Pairs of images that share some of their factors, for weak supervision."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from disentangle.data.base import GroundTruthData, Integers


class FactorPairs(NamedTuple):
    """The factors of pairs of images.

    Attributes:
        first: Factors of the first images, int64 `(N, F)`.
        second: Factors of the second ones, int64 `(N, F)`.
        shared: True for the factors that are equal in a pair, bool `(N, F)`.
    """

    first: Integers
    second: Integers
    shared: NDArray[np.bool_]


def sample_pairs(
    data: GroundTruthData, n: int, generator: np.random.Generator, *, shared: int | tuple[int, int]
) -> FactorPairs:
    """Draw pairs of factors that are equal in some factors and differ in all others.

    The first of a pair is uniform. Which factors are shared is uniform, too, and the second is
    uniform over the combinations that fit. `data.render` draws the images. A factor of a single
    value is always shared, and counts.

    Source: Locatello et al., 2020, https://arxiv.org/abs/2002.02886. Its code draws the factors
    that are not shared anew, so that by chance they may be equal; here they always differ.

    Args:
        data: The data set.
        n: Number of pairs.
        generator: Random generator of all draws.
        shared: Number of factors that a pair shares; or the smallest and the largest number,
            with all numbers between them equally likely.

    Raises:
        ValueError: If `n` is negative, or if `shared` is not from the number of factors of a single
            value to that of all factors.

    Examples:
        >>> from disentangle.data import RenderedSprites
        >>> data = RenderedSprites()
        >>> pairs = sample_pairs(data, 4, np.random.default_rng(0), shared=3)
        >>> (pairs.first == pairs.second).sum(1)
        array([3, 3, 3, 3])
        >>> data.render(pairs.second).shape
        torch.Size([4, 1, 64, 64])
    """
    sizes = np.asarray(data.factor_sizes)
    least, most = shared if isinstance(shared, tuple) else (shared, shared)
    constant = int((sizes == 1).sum())
    if not constant <= least <= most <= len(sizes):
        raise ValueError(f"shared must be from {constant} to {len(sizes)}, got {shared}")
    first = data.sample_factors(n, generator)
    counts = generator.integers(least, most, size=(n, 1), endpoint=True)
    # Each row is a random order of the factors, those of a single value first.
    order = np.where(sizes == 1, -1, generator.random((n, len(sizes)))).argsort(axis=1)
    equal = order.argsort(axis=1) < counts
    # A step of 1 to size - 1 leads to each other value with the same probability.
    steps = generator.integers(1, np.maximum(sizes, 2), size=first.shape)
    return FactorPairs(first, np.where(equal, first, (first + steps) % sizes), equal)
