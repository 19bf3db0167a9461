"""Fréchet inception distance (FID).

Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, GANs Trained by a Two Time-Scale Update Rule
Converge to a Local Nash Equilibrium, NeurIPS 2017, https://arxiv.org/abs/1706.08500, section 3;
Dowson and Landau, The Fréchet distance between multivariate normal distributions, 1982,
https://doi.org/10.1016/0047-259X(82)90077-X.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from disentangle.linalg import matrix_sqrt
from disentangle.metrics.features import (
    FeatureOrigin,
    Features,
    as_features,
    caveat_of,
    iterate_features,
)
from disentangle.metrics.inputs import Array
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """Count, mean and scatter of features, in double precision: all that FID needs of them.

    `merge` adds those of further batches or other processes; the features need not be kept.

    Attributes:
        count: Number of points.
        mean: Shape `(D,)`.
        scatter: Sum of `(x − mean)(x − mean)ᵀ`, shape `(D, D)`.
        origin: What the features were made with and of.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> halves = FeatureMoments.of(x[:50]).merge(FeatureMoments.of(x[50:]))
        >>> np.allclose(halves.covariance, np.cov(x.T))
        True
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray
    origin: FeatureOrigin

    @classmethod
    def of(cls, features: Array | Features) -> "FeatureMoments":
        """The moments of features `(N, D)`.

        Raises:
            ValueError: If they are not finite numbers of that shape.
        """
        if not isinstance(features, Features):
            features = Features(features)
        x = as_features(features.values).astype(np.float64)
        mean = x.mean(axis=0)
        centred = x - mean
        return cls(len(x), mean, centred.T @ centred, features.origin)

    @classmethod
    def of_images(
        cls,
        network: Callable[[Tensor], Tensor],
        batches: Iterable[Tensor],
        *,
        keep: int | None = None,
    ) -> "FeatureMoments":
        """The moments of the features of all images of several batches, one batch at a time.

        Args:
            network: Gives features `(N, D)` of images `(N, C, H, W)`.
            batches: Images of one shape, in `[-1, 1]`.
            keep: How many images to take; by default all of them.

        Raises:
            ValueError: As `extract_features`.
        """
        return functools.reduce(
            cls.merge, map(cls.of, iterate_features(network, batches, keep=keep))
        )

    def merge(self, other: "FeatureMoments") -> "FeatureMoments":
        """The moments of both sets of points together.

        Chan, Golub and LeVeque 1979, http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/: unlike
        sums of squares, it loses no digits where the mean is large.

        Raises:
            ValueError: If the features are not of one network and of images of one shape.
        """
        self._check_same(other)
        count = self.count + other.count
        step = other.mean - self.mean
        return FeatureMoments(
            count,
            self.mean + step * (other.count / count),
            self.scatter
            + other.scatter
            + np.outer(step, step) * (self.count * other.count / count),
            self.origin.join(other.origin),
        )

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance `(D, D)`.

        Raises:
            ValueError: If there are fewer than two points.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 points, got {self.count}")
        return self.scatter / (self.count - 1)

    def _check_same(self, other: "FeatureMoments") -> None:
        self.origin.check_same(other.origin)
        if len(self.mean) != len(other.mean):
            raise ValueError(
                f"both sets must have the same number of features, got {len(self.mean)} and "
                f"{len(other.mean)}"
            )


@dataclass(frozen=True, eq=False)
class FrechetResult(Result):
    """Result of `frechet_inception_distance`.

    Attributes:
        score: `mean_term + covariance_term`.
        mean_term: Squared distance of the means.
        covariance_term: What the covariances add.
        points: How many points each set has.
        features: The name of the feature network.
        caveat: Why the score cannot be compared with published ones, and sets of images that look
            like `[0, 1]`; empty if neither.
    """

    score: float
    mean_term: float
    covariance_term: float
    points: tuple[int, int]
    features: str
    caveat: str


def frechet_inception_distance(
    features: Array | Features | FeatureMoments, reference: Array | Features | FeatureMoments
) -> FrechetResult:
    """Distance of two sets of images, as normal distributions of their features.

    Heusel et al. 2017, https://arxiv.org/abs/1706.08500: `‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)`,
    the squared 2-Wasserstein distance of the normal distributions with these moments.

    Range: from 0, equal moments, without an upper end. It depends on the number of points, and so
    do the ranks of models: fewer points give a larger distance, even between halves of one set.

    Blind to everything but the first two moments, and so to copies of the training images; what
    counts is what the feature network sees, which is texture and the classes of ImageNet more than
    faces.

    Protocol: 50,000 generated images, from the averaged weights, against all of the data set, with
    the features of `load_fid_inception` and unbiased covariances. Images of both sets must have the
    same size: `Features` and `FeatureMoments` of images remember it, plain arrays cannot. Fewer
    points than features (2,048) give singular covariances; the distance is still that of them.

    `tr (Σ₁Σ₂)^½` is the sum of the singular values of `Σ₁^½ Σ₂^½`, in double precision. The square
    root and the eigenvalues of `Σ₁Σ₂`, which other programs take, have half the digits where a
    covariance is singular, and turn complex there.

    Args:
        features: Features of generated images, shape `(N, D)`, or their moments.
        reference: Features of real images, shape `(M, D)`, or their moments.

    Raises:
        ValueError: If features are not finite, if there are fewer than two points, or if both are
            not of the same network or of images of the same shape.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(500, 8))
        >>> round(frechet_inception_distance(x + 0.5, x).score, 6)
        2.0
        >>> frechet_inception_distance(x, x).caveat
        'unnamed features, not comparable with published values'
    """
    a, b = (
        x if isinstance(x, FeatureMoments) else FeatureMoments.of(x) for x in (features, reference)
    )
    a._check_same(b)
    mean_term = float(np.square(a.mean - b.mean).sum())
    covariance_term = bures_distance(a.covariance, b.covariance)
    return FrechetResult(
        score=mean_term + covariance_term,
        mean_term=mean_term,
        covariance_term=covariance_term,
        points=(a.count, b.count),
        features=a.origin.network,
        caveat=caveat_of(a.origin, b.origin),
    )


def bures_distance(covariance: np.ndarray, other: np.ndarray) -> float:
    """`tr(A + B − 2 (AB)^½)` of two positive semi-definite matrices `(D, D)`, singular ones too.

    Examples:
        >>> bures_distance(np.diag([4.0, 0.0]), np.diag([1.0, 0.0]))  # (2 − 1)²
        1.0
    """
    roots = matrix_sqrt(torch.from_numpy(np.stack([covariance, other])), "eigh")
    cross = torch.linalg.svdvals(roots[0] @ roots[1]).sum().item()
    # rounding can leave less than nothing of equal matrices
    return max(float(np.trace(covariance) + np.trace(other)) - 2 * cross, 0.0)
