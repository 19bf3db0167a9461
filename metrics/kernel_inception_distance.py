"""Kernel inception distance (KID).

Bińkowski, Sutherland, Arbel and Gretton, Demystifying MMD GANs, ICLR 2018,
https://arxiv.org/abs/1801.01401, section 4.
"""

from dataclasses import dataclass

import numpy as np

from disentangle.metrics.features import Features, as_features, caveat_of
from disentangle.metrics.inputs import Array, check_at_least
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class KernelResult(Result):
    """Result of `kernel_inception_distance`.

    Attributes:
        score: Mean of the estimates.
        std: Standard deviation of the estimates; NaN with one. That of their mean is smaller, but
            not by `√subsets`, as the subsets are of the same points.
        estimates: Estimate of each pair of subsets, shape `(subsets,)`.
        points: How many points each set has.
        features: The name of the feature network.
        caveat: Why the score cannot be compared with published ones, and sets of images that look
            like `[0, 1]`; empty if neither.
    """

    undefined = frozenset({"std"})

    score: float
    std: float
    estimates: np.ndarray
    points: tuple[int, int]
    features: str
    caveat: str


def kernel_inception_distance(
    features: Array | Features,
    reference: Array | Features,
    *,
    subsets: int = 100,
    subset_size: int = 1_000,
    degree: int = 3,
    seed: int = 0,
) -> KernelResult:
    """Distance of two sets of images, as a maximum mean discrepancy of their features.

    Bińkowski et al. 2018, https://arxiv.org/abs/1801.01401: the unbiased estimate of MMD² with the
    kernel `(xᵀy / D + 1)³`, averaged over random subsets.

    Range: from 0 without an upper end; published values are often given times 1,000. As the
    estimate is unbiased, it is negative about every other time for equal distributions, and
    comparable between numbers of points, which FID is not.

    Blind to moments above the third, and like FID to copies of the training images and to what the
    feature network does not see.

    Protocol: 100 subsets of 1,000 points of each set, drawn without replacement, features of
    `load_fid_inception`. Images of both sets must have the same size: `Features` of images remember
    it, plain arrays cannot. Other toolkits shrink the subsets silently where there are fewer points
    than that; here it is an error.

    Args:
        features: Features of generated images, shape `(N, D)`.
        reference: Features of real images, shape `(M, D)`.
        subsets: How many pairs of subsets are drawn.
        subset_size: Points of each, at least 2.
        degree: Degree of the polynomial kernel.
        seed: Seed for drawing the subsets.

    Raises:
        ValueError: If features are not finite, if there are fewer points than in a subset, if a
            number is out of its range, or if both are not of the same network or of images of the
            same shape.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(2_000, 8))
        >>> few = dict(subsets=10, subset_size=500)
        >>> bool(abs(kernel_inception_distance(x[::2], x[1::2], **few).score) < 0.02)
        True
        >>> bool(kernel_inception_distance(x + 1, x, **few).score > 5)
        True
    """
    check_at_least(1, subsets=subsets, degree=degree)
    check_at_least(2, subset_size=subset_size)
    a, b = (x if isinstance(x, Features) else Features(x) for x in (features, reference))
    a.origin.check_same(b.origin)
    x, y = as_features(a.values), as_features(b.values)
    _check_points(x, y, subset_size)
    rng = np.random.default_rng(seed)
    estimates = np.array(
        [
            squared_mmd(
                rng.choice(x, subset_size, replace=False, shuffle=False),
                rng.choice(y, subset_size, replace=False, shuffle=False),
                degree=degree,
            )
            for _ in range(subsets)
        ]
    )
    return KernelResult(
        score=float(estimates.mean()),
        std=float(estimates.std(ddof=1)) if subsets > 1 else float("nan"),
        estimates=estimates,
        points=(len(x), len(y)),
        features=a.origin.network,
        caveat=caveat_of(a.origin, b.origin),
    )


def squared_mmd(x: np.ndarray, y: np.ndarray, *, degree: int = 3) -> float:
    """Unbiased MMD² of points `(N, D)` and `(M, D)` with the kernel `(xᵀy / D + 1)^degree`.

    Gretton et al., JMLR 2012, https://jmlr.org/papers/v13/gretton12a.html, equation 3.

    Examples:
        >>> squared_mmd(np.array([[0.0], [0.0]]), np.array([[1.0], [1.0]]))  # 1 + 8 − 2
        7.0
    """
    x, y = x.astype(np.float64), y.astype(np.float64)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** degree

    def mean_of_pairs(a: np.ndarray) -> float:
        k = kernel(a, a)
        return (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean())


def _check_points(x: np.ndarray, y: np.ndarray, subset_size: int) -> None:
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"both sets must have the same number of features, got {x.shape[1]} and {y.shape[1]}"
        )
    if min(len(x), len(y)) < subset_size:
        raise ValueError(
            f"both sets must have at least subset_size = {subset_size} points, got {len(x)} and "
            f"{len(y)}"
        )
