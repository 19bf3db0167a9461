"""Explicitness.

Ridgeway and Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, NeurIPS 2018,
https://arxiv.org/abs/1802.05312, section 3; in the protocol of disentanglement_lib, Locatello et
al., ICML 2019, https://arxiv.org/abs/1811.12359.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from disentangle.metrics.information import count_values
from disentangle.metrics.inputs import (
    Array,
    as_codes_and_factors,
    as_test_split,
    check_at_least,
    find_varying,
)
from disentangle.metrics.results import Result

# from training points, their values and test points: scores of each value for both sets of points
Regress = Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class ExplicitnessResult(Result):
    """Result of `explicitness`.

    Attributes:
        score: Mean over the factors that are not excluded, on the test points.
        train_score: The same on the training points.
        per_factor: Mean area under the ROC curve of each factor's values on the test points, shape
            `(F,)`; NaN for an excluded factor.
        per_value: The area for each value that a factor takes in training, in ascending order, one
            array per factor; NaN where it is not defined, because no test point has the value, or
            every one.
        excluded_factors: The indices of the factors with one value in training, or without a value
            whose area is defined.
    """

    undefined = frozenset({"per_factor"})

    score: float
    train_score: float
    per_factor: np.ndarray
    per_value: tuple[np.ndarray, ...]
    excluded_factors: tuple[int, ...]


def explicitness(
    codes: Array,
    factors: Array,
    test_codes: Array,
    test_factors: Array,
    *,
    one_vs_rest: bool = False,
    max_iterations: int = 1_000,
    workers: int | None = None,
) -> ExplicitnessResult:
    """Explicitness: ROC AUC of linear classifiers that predict each factor from all codes.

    Ridgeway and Mozer 2018, https://arxiv.org/abs/1802.05312: the area under the ROC curve of each
    value of a factor against its other values, averaged over values, then over factors. The
    classifier is a logistic regression on standardised codes.

    Range: 0.5, which is chance (noise falls on both sides of it), to 1.

    Blind to where the information sits: a rotation of perfect codes scores as they do. Blind also
    to information that is not linear in the codes. The area of a value among many is high even if
    the value is confused with its neighbours.

    Protocol: disentanglement_lib's, 10,000 training and 5,000 test points, scikit-learn's
    multinomial `LogisticRegression()`, but up to `max_iterations` iterations where that stops at
    100. `one_vs_rest` is the paper's classifier, one binary regression per value: that separates no
    middle value of a line, and perfect codes of dSprites' factors get 0.78 with it instead of 0.99.
    `LogisticRegression()` was one-versus-rest as well before scikit-learn 0.22, so numbers that
    disentanglement_lib printed in 2019 compare with `one_vs_rest`.
    A constant code is set to 0 (that library divides it by 0 and raises). A value that no test
    point has is left out of the mean of its factor (there it raises); one that training did not
    have counts as one of the others.

    Args:
        codes: Shape `(N, K)`, real.
        factors: Shape `(N, F)`, integers.
        test_codes: Shape `(M, K)`.
        test_factors: Shape `(M, F)`.
        one_vs_rest: A binary classifier per value, in place of a multinomial one per factor.
        max_iterations: Most iterations of the solver; scikit-learn warns where they do not suffice.
        workers: Threads, of which each takes a factor; one per core by default.

    Raises:
        ValueError: If the arguments do not fit together, a code is not finite, or no factor has two
            values in training and a value whose area is defined on the test points.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, [2, 3], size=(1_500, 2))
        >>> train, test = factors[:1_000], factors[1_000:]
        >>> explicitness(train, train, test, test).score
        1.0
        >>> explicitness(0 * train, train, 0 * test, test).score
        0.5
    """
    check_at_least(1, max_iterations=max_iterations)
    train = as_codes_and_factors(codes, factors, minimum=2)
    test = as_test_split(test_codes, test_factors, like=train)
    find_varying(count_values(train[1]))
    x, x_test = _standardise(train[0], test[0])
    regress = _regress_one_vs_rest if one_vs_rest else _regress
    pool = Parallel(n_jobs=-1 if workers is None else workers, prefer="threads")
    with threadpool_limits(limits=1):  # products this small are slower on several threads
        areas = pool(
            delayed(_find_areas)(regress, x, y, x_test, y_test, max_iterations)
            for y, y_test in zip(train[1].T, test[1].T, strict=True)
        )
    train_per_factor, per_factor = np.array(
        [[_mean_defined(values) for values in pair] for pair in areas]
    ).T
    scored = ~np.isnan(per_factor)
    if not scored.any():
        raise ValueError("test factors must have values that training has, two or more of a factor")
    return ExplicitnessResult(
        score=float(per_factor[scored].mean()),
        train_score=float(train_per_factor[scored].mean()),
        per_factor=per_factor,
        per_value=tuple(test_areas for _, test_areas in areas),
        excluded_factors=tuple(np.flatnonzero(~scored).tolist()),
    )


def _standardise(codes: np.ndarray, test_codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training codes with mean 0 and standard deviation 1, test codes by the same map."""
    mean, std = codes.mean(axis=0, dtype=np.float64), codes.std(axis=0, dtype=np.float64)
    constant = codes.min(axis=0) == codes.max(axis=0)  # whose std may be rounding, not 0
    scale = np.where(constant, 0, 1 / np.where(constant, 1, std))
    return (codes - mean) * scale, (test_codes - mean) * scale


def _find_areas(
    regress: Regress,
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
    max_iterations: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Areas `(V,)` of the values of one factor, on training and on test points."""
    values = np.unique(y)
    if len(values) == 1:
        return np.array([np.nan]), np.array([np.nan])
    scores, test_scores = regress(x, y, x_test, max_iterations)
    return _roc_areas(scores, y[:, None] == values), _roc_areas(
        test_scores, y_test[:, None] == values
    )


def _regress(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, max_iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `(N, V)`, `(M, V)` of the values by one multinomial regression."""
    model = LogisticRegression(max_iter=max_iterations).fit(x, y)
    return model.predict_proba(x), model.predict_proba(x_test)


def _regress_one_vs_rest(
    x: np.ndarray, y: np.ndarray, x_test: np.ndarray, max_iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log odds `(N, V)`, `(M, V)` of the values by one binary regression each."""
    models = [LogisticRegression(max_iter=max_iterations).fit(x, y == v) for v in np.unique(y)]
    scores = [[model.decision_function(points) for model in models] for points in (x, x_test)]
    return np.stack(scores[0], axis=1), np.stack(scores[1], axis=1)


def _roc_areas(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every column of `(N, V)`; NaN without a positive or negative.

    By its identity with the Mann–Whitney statistic: ties count one half.
    """
    positives = positive.sum(axis=0)
    pairs = positives * (len(positive) - positives)
    excess = (rankdata(scores, axis=0) * positive).sum(axis=0) - positives * (positives + 1) / 2
    return np.divide(excess, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def _mean_defined(values: np.ndarray) -> float:
    """Mean of the entries that are not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else np.nan
