"""BetaVAE score.

Higgins et al., beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework,
ICLR 2017, https://openreview.net/forum?id=Sy2fzU9gl, section 3; in the protocol of
disentanglement_lib, Locatello et al., ICML 2019, https://arxiv.org/abs/1811.12359.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from disentangle.metrics.factor_vae import CHUNK
from disentangle.metrics.inputs import (
    Array,
    as_numbers,
    check_at_least,
    find_varying,
    represent_points,
)
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class BetaVaeResult(Result):
    """Result of `beta_vae_score`.

    Attributes:
        score: Accuracy of the classifier on the test points.
        train_accuracy: Its accuracy on the training points.
        confusion: How often a factor was held fixed (row) and named (column) in the test points,
            shape `(F, F)`.
        differences: Mean difference of each code between training pairs that share a factor, shape
            `(K, F)`; NaN for a factor that was not held fixed.
        excluded_factors: The indices of the factors with one value, which are never held fixed.
        train_points: Number of training points.
        test_points: Number of test points.
    """

    undefined = frozenset({"differences"})

    score: float
    train_accuracy: float
    confusion: np.ndarray
    differences: np.ndarray
    excluded_factors: tuple[int, ...]
    train_points: int
    test_points: int


def beta_vae_score(
    represent: Callable[[np.ndarray], Array],
    factor_sizes: Sequence[int],
    *,
    batch_size: int = 64,
    train_points: int = 10_000,
    test_points: int = 5_000,
    max_iterations: int = 1_000,
    seed: int = 0,
) -> BetaVaeResult:
    """BetaVAE score: accuracy of predicting which factor pairs share from their code differences.

    Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl: a point is the mean of
    `|code − code'|` over a batch of pairs that share the value of one random factor and are
    otherwise independent; a logistic regression names the factor.

    Range: chance, `1 / F`, to 1.

    Blind to mixing and to more: a linear classifier of all differences can name the factor under
    most rotations of perfect codes, and still if no code holds one of the factors (it is then named
    by exclusion). Many representations get nearly 1. Differences are taken as they are, so that
    codes on a small scale are held back by the regression's penalty. Each factor is drawn uniformly
    and independently of the others.

    Protocol: disentanglement_lib's: 10,000 training and 5,000 test points with batches of 64 pairs,
    `LogisticRegression()`, multinomial since scikit-learn 0.22 and one-versus-rest in 2019, but up
    to `max_iterations` iterations where that stops at 100. That renders and encodes 1,920,000
    images: where that is too slow, fewer points give the same score with more noise, a standard
    error of at most `0.5 / √test_points`. The random numbers are not that library's.

    Args:
        represent: Gives the codes `(N, K)` of int64 factors `(N, F)`; is called with at most
            `CHUNK` points (or one batch of pairs) at a time.
        factor_sizes: How many values each factor takes; values count from 0.
        batch_size: Pairs whose differences are averaged.
        train_points: Points that the classifier is fitted to.
        test_points: Points that it is scored on.
        max_iterations: Most iterations of the solver; scikit-learn warns where they do not suffice.
        seed: Seed for drawing the factors.

    Raises:
        ValueError: If an argument is out of its range, fewer than two factors have two values,
            all training points fix the same factor, or `represent` does not return finite codes of
            shape `(N, K)`.

    Examples:
        >>> few = dict(train_points=300, test_points=200)
        >>> beta_vae_score(lambda factors: factors, [3, 6, 40], **few).score
        1.0
        >>> round(beta_vae_score(lambda factors: 0 * factors, [3, 6, 40], **few).score, 1)
        0.3
    """
    check_at_least(1, batch_size=batch_size, test_points=test_points, max_iterations=max_iterations)
    check_at_least(2, train_points=train_points)
    varying = np.flatnonzero(find_varying(factor_sizes, minimum=2))
    rng = np.random.default_rng(seed)
    sizes = as_numbers("factor sizes", factor_sizes)
    sample = _Sampler(represent, sizes, rng, batch_size)
    train, labels = sample.draw(train_points, varying)
    if len(np.unique(labels)) == 1:
        raise ValueError(
            f"training points must hold two factors fixed or more, got {train_points} points that "
            f"all hold factor {labels[0]}"
        )
    model = LogisticRegression(max_iter=max_iterations).fit(train, labels)
    test, test_labels = sample.draw(test_points, varying)
    predicted = model.predict(test)
    confusion = np.zeros((len(factor_sizes), len(factor_sizes)), dtype=np.int64)
    np.add.at(confusion, (test_labels, predicted), 1)
    return BetaVaeResult(
        score=float((predicted == test_labels).mean()),
        train_accuracy=float((model.predict(train) == labels).mean()),
        confusion=confusion,
        differences=_mean_by_label(train, labels, len(factor_sizes)),
        excluded_factors=tuple(np.setdiff1d(np.arange(len(factor_sizes)), varying).tolist()),
        train_points=train_points,
        test_points=test_points,
    )


@dataclass(frozen=True)
class _Sampler:
    """Draws pairs of random factors that share one, and compares their codes."""

    represent: Callable[[np.ndarray], Array]
    sizes: np.ndarray
    rng: np.random.Generator
    batch_size: int

    def draw(self, points: int, varying: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean absolute differences `(points, K)` of batches, and the fixed factors `(points,)`."""
        per_chunk = max(1, CHUNK // (2 * self.batch_size))
        fixed = self.rng.choice(varying, size=points)
        chunks = [fixed[i : i + per_chunk] for i in range(0, points, per_chunk)]
        return np.concatenate([self._compare(chunk) for chunk in chunks]), fixed

    def _compare(self, fixed: np.ndarray) -> np.ndarray:
        """Mean absolute differences `(B, K)` over a batch of pairs for each fixed factor."""
        shape = (2, len(fixed), self.batch_size, len(self.sizes))
        pairs = self.rng.integers(0, self.sizes, size=shape)
        rows = np.arange(len(fixed))
        pairs[1, rows, :, fixed] = pairs[0, rows, :, fixed]
        codes = represent_points(self.represent, pairs.reshape(-1, len(self.sizes)))
        first, second = codes.reshape(*shape[:3], -1)  # (2·B·N, K) → (2, B, N, K)
        return np.abs(first - second).mean(axis=1, dtype=np.float64)


def _mean_by_label(points: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Means `(K, count)` of the points `(N, K)` with each label below `count`; NaN of none."""
    means = np.full((points.shape[1], count), np.nan)
    for label in np.unique(labels):
        means[:, label] = points[labels == label].mean(axis=0)
    return means
