"""FactorVAE score.

Kim and Mnih, Disentangling by Factorising, ICML 2018, https://arxiv.org/abs/1802.05983,
section 4; in the protocol of disentanglement_lib, Locatello et al., ICML 2019,
https://arxiv.org/abs/1811.12359.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from disentangle.metrics.inputs import (
    Array,
    as_numbers,
    check_at_least,
    find_varying,
    represent_points,
)
from disentangle.metrics.results import Result

CHUNK = 4096  # points that are represented at once: bounds the memory


@dataclass(frozen=True, eq=False)
class FactorVaeResult(Result):
    """Result of `factor_vae_score`.

    Attributes:
        score: Accuracy of the majority vote on the test points.
        train_accuracy: Its accuracy on the training points.
        votes: Training votes `(K, F)`: how often a code varied least with a factor held fixed.
        test_votes: The same of the test points.
        variances: Variance of each code over all factors, shape `(K,)`.
        active_codes: Which codes were not pruned, shape `(K,)`.
        excluded_factors: The indices of the factors with one value, which are never held fixed.
        train_points: Number of training votes.
        test_points: Number of test votes.
    """

    score: float
    train_accuracy: float
    votes: np.ndarray
    test_votes: np.ndarray
    variances: np.ndarray
    active_codes: np.ndarray
    excluded_factors: tuple[int, ...]
    train_points: int
    test_points: int


def factor_vae_score(
    represent: Callable[[np.ndarray], Array],
    factor_sizes: Sequence[int],
    *,
    batch_size: int = 64,
    train_points: int = 10_000,
    test_points: int = 5_000,
    variance_points: int = 10_000,
    prune_below: float = 0.05,
    seed: int = 0,
) -> FactorVaeResult:
    """FactorVAE score: accuracy of predicting the fixed factor from the code that varies least.

    Kim and Mnih 2018, https://arxiv.org/abs/1802.05983: a vote holds one random factor fixed over
    a batch and names the code with the smallest variance, relative to its variance over all
    factors. Each code predicts the factor that it was named for most often.

    Range: 0 to 1, where chance is the share of the most frequent factor, about `1 / F`; a
    representation without an active code gets 0.

    Blind to mixing as long as every code has one leading factor: many a rotation of perfect codes
    gets 1. Blind also to several codes for one factor, and to the resolution of a code. Each
    factor is drawn uniformly and independently of the others.

    Protocol: disentanglement_lib's: unbiased variances, 10,000 points for the global ones, codes
    with a standard deviation below 0.05 pruned, 10,000 training and 5,000 test votes with batches
    of 64. That renders and encodes 970,000 images: where that is too slow, fewer votes give the
    same score with more noise, a standard error of at most `0.5 / √test_points`. The random
    numbers are not that library's.

    Args:
        represent: Gives the codes `(N, K)` of int64 factors `(N, F)`; is called with at most
            `CHUNK` points (or one batch) at a time.
        factor_sizes: How many values each factor takes; values count from 0.
        batch_size: Points in which a factor is held fixed.
        train_points: Votes that the classifier is made from.
        test_points: Votes that it is scored on.
        variance_points: Points that the global variances are computed from.
        prune_below: Standard deviation under which a code is ignored.
        seed: Seed for drawing the factors.

    Raises:
        ValueError: If an argument is out of its range, no factor has two values, or `represent`
            does not return finite codes of shape `(N, K)`.

    Examples:
        >>> few = dict(train_points=300, test_points=200, variance_points=1_000)
        >>> factor_vae_score(lambda factors: factors, [3, 6, 40], **few).score
        1.0
        >>> factor_vae_score(lambda factors: 0 * factors, [3, 6, 40], **few).score
        0.0
    """
    check_at_least(1, train_points=train_points, test_points=test_points)
    check_at_least(2, batch_size=batch_size, variance_points=variance_points)
    varying = find_varying(factor_sizes)
    rng = np.random.default_rng(seed)
    sample = _Sampler(represent, as_numbers("factor sizes", factor_sizes), rng)
    variances = sample.global_variances(variance_points)
    # a constant code is never active, whatever the threshold: its relative variance is 0/0
    active = (np.sqrt(variances) >= prune_below) & (variances > 0)
    votes, test_votes = np.zeros((2, len(active), len(varying)), dtype=np.int64)
    if active.any():
        relative = np.where(active, variances, np.nan)
        votes = sample.votes(train_points, batch_size, relative, varying)
        test_votes = sample.votes(test_points, batch_size, relative, varying)
    predicted = votes.argmax(axis=1)  # (K,)
    codes = np.arange(len(active))
    return FactorVaeResult(
        score=float(test_votes[codes, predicted].sum() / test_points),
        train_accuracy=float(votes[codes, predicted].sum() / train_points),
        votes=votes,
        test_votes=test_votes,
        variances=variances,
        active_codes=active,
        excluded_factors=tuple(np.flatnonzero(~varying).tolist()),
        train_points=train_points,
        test_points=test_points,
    )


@dataclass(frozen=True)
class _Sampler:
    """Draws random factors and looks at the variances of their codes."""

    represent: Callable[[np.ndarray], Array]
    sizes: np.ndarray
    rng: np.random.Generator

    def global_variances(self, points: int) -> np.ndarray:
        """Unbiased variance `(K,)` of each code over `points` random points."""
        factors = self.rng.integers(0, self.sizes, size=(points, len(self.sizes)))
        chunks = [factors[i : i + CHUNK] for i in range(0, points, CHUNK)]
        codes = np.concatenate([represent_points(self.represent, chunk) for chunk in chunks])
        return codes.var(axis=0, ddof=1, dtype=np.float64)

    def votes(
        self, points: int, batch_size: int, variances: np.ndarray, varying: np.ndarray
    ) -> np.ndarray:
        """Votes `(K, F)` of `points` batches; a code whose variance is NaN gets none."""
        votes = np.zeros((len(variances), len(self.sizes)), dtype=np.int64)
        per_chunk = max(1, CHUNK // batch_size)
        for start in range(0, points, per_chunk):
            batches = min(per_chunk, points - start)
            fixed = self.rng.choice(np.flatnonzero(varying), size=batches)
            factors = self.draw_batches(fixed, batch_size)
            codes = represent_points(self.represent, factors.reshape(-1, len(self.sizes)))
            codes = codes.reshape(batches, batch_size, -1)  # (B·N, K) → (B, N, K)
            local = codes.var(axis=1, ddof=1, dtype=np.float64)
            np.add.at(votes, (np.nanargmin(local / variances, axis=1), fixed), 1)
        return votes

    def draw_batches(self, fixed: np.ndarray, batch_size: int) -> np.ndarray:
        """Factors `(B, N, F)`, in whose batch `b` the factor `fixed[b]` has one value."""
        shape = (len(fixed), batch_size, len(self.sizes))
        factors = self.rng.integers(0, self.sizes, size=shape)
        rows = np.arange(len(fixed))
        factors[rows, :, fixed] = factors[rows, 0, fixed][:, None]
        return factors
