"""Disentanglement, completeness and informativeness (DCI).

Eastwood and Williams, A Framework for the Quantitative Evaluation of Disentangled Representations,
ICLR 2018, https://openreview.net/forum?id=By-7dz-AZ, section 2; in the protocol of
disentanglement_lib, Locatello et al., ICML 2019, https://arxiv.org/abs/1811.12359.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
from scipy.stats import entropy
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.utils.parallel import Parallel, delayed

from disentangle.metrics.histogram_boosting import fit_histogram_boosting, quantile_bins
from disentangle.metrics.information import count_values
from disentangle.metrics.inputs import (
    Array,
    as_codes_and_factors,
    as_test_split,
    check_at_least,
    find_varying,
)
from disentangle.metrics.results import Result

SMOOTHING = 1e-11  # of the importances inside the logarithms, as in the published protocol
FEWEST_POINTS = 1_000  # below which `dci` is quick enough, and its approximation too coarse
POINTS_PER_BIN = 80  # finer bins isolate fewer points than exact splits, and overfit more slowly
FEWEST_BINS, MOST_BINS = 16, 256  # they are numbered by one byte

# trees · codes · points · log₂ points, which a core sorts in two minutes
MOST_SORTED = 6e9

# importance of the codes (K,), training accuracy, test accuracy
Fit = tuple[np.ndarray, float, float]


@dataclass(frozen=True, eq=False)
class DciResult(Result):
    """Result of `dci` and `histogram_dci`.

    Attributes:
        score: Disentanglement: mean over codes, weighted by their importance.
        completeness: Mean over factors, weighted by their importance.
        informativeness: Mean test accuracy over the factors.
        train_informativeness: Mean training accuracy over the factors.
        importance: Importance of each code for each factor, shape `(K, F)`, columns add up to 1 (0
            where the trees did not split); NaN for a factor with one value.
        disentanglement_per_code: Shape `(K,)`.
        completeness_per_factor: Shape `(F,)`; NaN for a factor with one value.
        accuracies: On the test points, shape `(F,)`; NaN for a factor with one value.
        excluded_factors: The indices of the factors with one value.
        estimator: Where the importances come from: `"gradient boosting"`, the published protocol,
            or `"histogram boosting, … bins"`, an approximation.
    """

    undefined = frozenset({"importance", "completeness_per_factor", "accuracies"})

    score: float
    completeness: float
    informativeness: float
    train_informativeness: float
    importance: np.ndarray
    disentanglement_per_code: np.ndarray
    completeness_per_factor: np.ndarray
    accuracies: np.ndarray
    excluded_factors: tuple[int, ...]
    estimator: str


def dci(
    codes: Array,
    factors: Array,
    test_codes: Array,
    test_factors: Array,
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> DciResult:
    """Does each code matter to one factor, and each factor depend on one code?

    Eastwood and Williams 2018, https://openreview.net/forum?id=By-7dz-AZ: a classifier predicts
    each factor from the codes; `R[k, f]` is the importance of code `k` to factor `f`.
    Disentanglement is the mean over codes, weighted by their importance, of `1 − H_F`, with the
    entropy to the base `F` of the code's normalised row of `R`. Completeness is the mean over
    factors of `1 − H_K`, with the entropy to the base `K` of the column. Informativeness is the
    test accuracy.

    Range: 0 to 1 each. Perfect codes get 1. Noise gets a disentanglement and completeness near 0
    and an informativeness at chance. Nothing helpful in any code gives 0, 0 and chance.

    Blind to how much a code knows: importances are shares, so that a disentanglement of 1 can go
    with an informativeness near chance. It punishes a factor that two codes share (completeness)
    or a code that tells two factors (disentanglement), but less than MIG does. Overfitting moves
    importance to noise codes: the fewer points and the more values a factor has, the more.

    Protocol: disentanglement_lib's, number for number: 10,000 training and 5,000 test points, one
    `GradientBoostingClassifier` with scikit-learn's defaults per factor, its impurity importances,
    entropies of `R + 1e-11`; `seed` is the `random_state` of each. Codes are rounded to single
    precision and differences below 1e-7 are ignored, so that the scale of a code matters if it is
    tiny. A test value that training did not have counts as missed. With one factor a code has
    disentanglement 1 if it matters, and with one code a factor completeness 1 (that library: NaN).

    It takes minutes: 100 trees per value of a factor, sorted anew at every node. For Cars3D's
    factors (4, 24 and 183 values) these are 2 minutes of one core for near-perfect codes and 9 for
    noise. Time grows with the product of points, codes and values: a million points of 10 codes
    take half a day, so score a random subset of them. Factors are fitted in parallel, the one with
    the most values first; the numbers do not depend on it. See `histogram_dci` for seconds.

    With a hundred values and few points of each, the published classifier is not stable: a leaf
    where the log-loss is nearly flat takes a step of up to 1e147, after which its class may never
    be predicted again. Importances for such a factor then change by 0.1 with `seed`.

    Args:
        codes: Training codes of shape `(N, K)`, real.
        factors: Training factors of shape `(N, F)`, integers.
        test_codes: Shape `(M, K)`.
        test_factors: Shape `(M, F)`.
        seed: Seed for choosing among equally good splits.
        workers: Factors fitted at once; one per core by default.
        progress: Called, one call at a time, with how many trees have been grown, of how many.

    Raises:
        ValueError: If the arguments do not fit together, a code is not finite in single precision,
            no factor has two values, or there are more codes than points and their trees would take
            minutes.

    Examples:
        >>> factors = np.random.default_rng(0).integers(0, [2, 3], size=(300, 2))
        >>> train, test = factors[:200], factors[200:]
        >>> result = dci(train, train, test, test)
        >>> round(result.score, 3), round(result.completeness, 3), result.informativeness
        (1.0, 1.0, 1.0)
    """
    train, test = _check(codes, factors, test_codes, test_factors)
    _check_effort(*train)
    inputs, test_inputs = (_as_single(array) for array in (train[0], test[0]))
    count = None if progress is None else _TreeCount(progress, train[1])

    def fit(labels: np.ndarray, test_labels: np.ndarray) -> Fit:
        model = GradientBoostingClassifier(random_state=seed).fit(inputs, labels, monitor=count)
        accuracies = (
            float(np.mean(model.predict(x) == y))
            for x, y in ((inputs, labels), (test_inputs, test_labels))
        )
        return np.abs(model.feature_importances_), *accuracies  # rounding can be below zero

    return _score(fit, train, test, workers, estimator="gradient boosting")


def histogram_dci(
    codes: Array,
    factors: Array,
    test_codes: Array,
    test_factors: Array,
    *,
    bins: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> DciResult:
    """Approximation of `dci` in seconds: the same boosting, on codes in bins.

    The trees, their number, depth, learning rate, leaves and importances are those of
    `GradientBoostingClassifier`; only can they not split a code inside one of its `bins` equally
    full bins. A code with at most `bins` different values is not approximated. See
    `disentangle.metrics.histogram_boosting`.

    Do not mix its numbers with those of `dci` in one table. On seven representations that were not
    used to design it, with 2,000 training points and factors with at most 10 values, its scores
    were within 0.02 of those of `dci` and its importances within 0.05
    (`tests/benchmarks/RESULTS.md`). It is too low where codes are finer than bins: for slightly
    noisy copies of factors with up to 40 values by 0.2 at 1,000 points and by 0.13 at 2,000. For
    Cars3D's factors (up to 183 values) such copies get 0.82 at 10,000 points, where `dci` gives
    0.81. Below 1,000 training points `disentangle evaluate` computes `dci` in its place.

    At 10,000 points of 10 codes it takes 5 s of one core for dSprites' factors and 10 s for
    Cars3D's (4, 24 and 183 values); time grows with the product of points, codes and values.

    Args:
        codes: Training codes of shape `(N, K)`, real.
        factors: Training factors of shape `(N, F)`, integers.
        test_codes: Shape `(M, K)`.
        test_factors: Shape `(M, F)`.
        bins: Per code, from 2 to 256; by default one per 80 training points, at least 16 and as
            many as a factor has values, at most 256.
        seed: Seed for choosing among equally good splits.
        workers: Factors fitted at once; one per core by default.

    Raises:
        ValueError: If the arguments do not fit together, a code is not finite, no factor has two
            values, or `bins` is out of its range.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, [2, 3], size=(3_000, 2))
        >>> codes = np.concatenate([factors, rng.normal(size=(3_000, 2))], axis=1)
        >>> result = histogram_dci(codes[:2_000], factors[:2_000], codes[2_000:], factors[2_000:])
        >>> round(result.score, 3), round(result.completeness, 3), result.informativeness
        (1.0, 1.0, 1.0)
        >>> result.estimator
        'histogram boosting, 25 bins'
    """
    train, test = _check(codes, factors, test_codes, test_factors)
    if bins is None:
        fewest = max(FEWEST_BINS, int(count_values(train[1]).max()))
        bins = min(max(fewest, len(train[0]) // POINTS_PER_BIN), MOST_BINS)
    check_at_least(2, bins=bins)
    if bins > MOST_BINS:
        raise ValueError(f"bins must be at most {MOST_BINS}, got {bins}")
    inputs, test_inputs = quantile_bins(train[0], test[0], bins=bins)

    def fit(labels: np.ndarray, test_labels: np.ndarray) -> Fit:
        values, numbers = np.unique(labels, return_inverse=True)
        result = fit_histogram_boosting(inputs, numbers, test_inputs, seed=seed)
        accuracy = float(np.mean(result.predictions == numbers))
        test_accuracy = float(np.mean(values[result.test_predictions] == test_labels))
        return result.importance, accuracy, test_accuracy

    return _score(fit, train, test, workers, estimator=f"histogram boosting, {bins} bins")


class _TreeCount:
    """Tells how many trees have been grown; what scikit-learn calls after each stage of a fit."""

    def __init__(self, tell: Callable[[int, int], object], factors: np.ndarray) -> None:
        self.total = _count_trees(factors)
        self.tell, self.grown, self.lock = tell, 0, Lock()

    def __call__(self, stage: int, model: GradientBoostingClassifier, state: object) -> bool:
        with self.lock:
            self.grown += model.estimators_.shape[1]
            self.tell(self.grown, self.total)
        return False  # True would stop the fit


def _count_trees(factors: np.ndarray) -> int:
    """Number of trees that `dci` grows for factors `(N, F)`."""
    values = count_values(factors)
    # of two values, one tree tells both
    return GradientBoostingClassifier().n_estimators * int(
        values[values > 2].sum() + (values == 2).sum()
    )


def _check_effort(codes: np.ndarray, factors: np.ndarray) -> None:
    """Raise `ValueError` for more codes than points, if their trees take minutes."""
    points, count = codes.shape
    trees = _count_trees(factors)
    if count > points and trees * count * points * np.log2(points) > MOST_SORTED:
        raise ValueError(
            f"dci would grow {trees:,} trees and sort all codes at each of their nodes, which is "
            f"refused for more codes than points, got {count:,} codes and {points:,} points: score "
            "fewer codes, such as their first principal components"
        )


def _check(
    codes: Array, factors: Array, test_codes: Array, test_factors: Array
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    train = as_codes_and_factors(codes, factors, minimum=2)
    return train, as_test_split(test_codes, test_factors, like=train)


def _as_single(codes: np.ndarray) -> np.ndarray:
    largest, limit = np.abs(codes).max(), np.finfo(np.float32).max
    if largest > limit:
        raise ValueError(f"codes must be at most {limit:.1e} in size, got {largest:.1e}")
    return np.asfortranarray(codes, dtype=np.float32)  # trees read one code of all points at a time


def _score(
    fit: Callable[[np.ndarray, np.ndarray], Fit],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    workers: int | None,
    *,
    estimator: str,
) -> DciResult:
    """Scores from a classifier of each factor that varies, fitted in parallel."""
    values = count_values(train[1])
    varying = find_varying(values)
    # threads, as trees are grown without the interpreter's lock; the longest fits first
    order = np.flatnonzero(varying)[np.argsort(-values[varying], kind="stable")]
    pool = Parallel(n_jobs=-1 if workers is None else workers, prefer="threads")
    fits = pool(delayed(fit)(train[1][:, f], test[1][:, f]) for f in order)
    importance = np.full((train[0].shape[1], len(varying)), np.nan)
    accuracies, completeness = np.full((2, len(varying)), np.nan)
    importance[:, order] = np.stack([weights for weights, _, _ in fits], axis=1)
    accuracies[order] = [accuracy for _, _, accuracy in fits]
    per_code, disentanglement = _concentration(importance[:, varying])
    completeness[varying], weighted_completeness = _concentration(importance[:, varying].T)
    return DciResult(
        score=disentanglement,
        completeness=weighted_completeness,
        informativeness=float(accuracies[varying].mean()),
        train_informativeness=float(np.mean([accuracy for _, accuracy, _ in fits])),
        importance=importance,
        disentanglement_per_code=per_code,
        completeness_per_factor=completeness,
        accuracies=accuracies,
        excluded_factors=tuple(np.flatnonzero(~varying).tolist()),
        estimator=estimator,
    )


def _concentration(importance: np.ndarray) -> tuple[np.ndarray, float]:
    """`1 − H` of each row, and their mean weighted by the rows' sums."""
    weights, columns = importance.sum(axis=1), importance.shape[1]
    if columns == 1:
        rows = (weights > 0).astype(np.float64)
    else:
        rows = 1 - entropy(importance + SMOOTHING, base=columns, axis=1)
    return rows, float(np.average(rows, weights=weights if weights.any() else None))
