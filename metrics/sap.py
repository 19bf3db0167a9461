"""Separated attribute predictability (SAP).

Kumar, Sattigeri and Balakrishnan, Variational Inference of Disentangled Latent Concepts from
Unlabeled Observations, ICLR 2018, https://arxiv.org/abs/1711.00848, section 3; in the protocol of
disentanglement_lib, Locatello et al., ICML 2019, https://arxiv.org/abs/1811.12359.
"""

from dataclasses import dataclass

import numpy as np

from disentangle.metrics.information import count_values
from disentangle.metrics.inputs import Array, as_codes_and_factors, as_test_split, find_varying
from disentangle.metrics.one_feature_svm import fit_one_feature_svms
from disentangle.metrics.results import Result

CONSTANT_BELOW = 1e-12  # variance of a code, under which the protocol calls it constant


@dataclass(frozen=True, eq=False)
class SapResult(Result):
    """Result of `sap`.

    Attributes:
        score: Mean of the gaps of the factors that vary.
        gaps: Shape `(F,)`; NaN for a factor with one value.
        predictability: Test accuracy, or squared correlation, of code and factor, shape `(K, F)`;
            NaN for a factor with one value.
        excluded_factors: The indices of the factors with one value.
    """

    undefined = frozenset({"gaps", "predictability"})

    score: float
    gaps: np.ndarray
    predictability: np.ndarray
    excluded_factors: tuple[int, ...]


def sap(
    codes: Array,
    factors: Array,
    test_codes: Array | None = None,
    test_factors: Array | None = None,
    *,
    continuous_factors: bool = False,
    cost: float = 0.01,
) -> SapResult:
    """Gap in predictability of each factor between the best and the second-best code.

    Kumar et al. 2018, https://arxiv.org/abs/1711.00848: the mean over factors of the difference of
    the two largest entries of a matrix of scores. The score of a code and a factor is the test
    accuracy of a linear classifier with the code as its only feature; or, for continuous factors,
    their squared correlation.

    Range: 0 to 1, and 1 is out of reach for more than two values: one-vs-rest classifiers of one
    feature hardly tell the middle values apart. Perfect codes, standardised, of dSprites' factors
    with 3, 6, 40, 32 and 32 values get about 0.25. With `continuous_factors` perfect codes get 1.

    Blind to a code that holds several factors, to information that is not linear in the code (an
    angle and its wrap-around), and to the third best code and further ones. It punishes a factor
    that two codes share. Accuracies depend on the scale of a code, through the penalty.

    Protocol: disentanglement_lib's, 10,000 training and 5,000 test points,
    `LinearSVC(C=0.01, class_weight="balanced")`. Its objective is minimised exactly, by another
    algorithm; scikit-learn's accuracies approach these as its tolerance goes to 0, and at its
    default they differ by a few test points per classifier, by more for codes with a mean or
    standard deviation of 10 and above. A test value that training did not have counts as missed.
    With `continuous_factors` the training points only are used and a code whose variance is at
    most 1e-12 gets 0. With one code only, the second best is a constant code (that library raises).

    Args:
        codes: Shape `(N, K)`, real.
        factors: Shape `(N, F)`, integers; real numbers with `continuous_factors`.
        test_codes: Shape `(M, K)`.
        test_factors: Shape `(M, F)`.
        continuous_factors: Squared correlations in place of test accuracies.
        cost: The constant `C` of the support vector machines.

    Raises:
        ValueError: If the arguments do not fit together, a code is not finite, the test points are
            missing, or no factor has two values.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, [2, 3], size=(3_000, 2))
        >>> train, test = factors[:2_000], factors[2_000:]
        >>> round(sap(train, train, test, test).score, 2)
        0.58
        >>> round(sap(train, train, continuous_factors=True).score, 2)
        1.0
    """
    if not 0 < cost < np.inf:
        raise ValueError(f"cost must be positive and finite, got {cost}")
    train = as_codes_and_factors(codes, factors, minimum=2, real_factors=continuous_factors)
    varying = find_varying(count_values(train[1]))
    if continuous_factors:
        scores = _squared_correlations(_add_second(train[0]), train[1][:, varying])
    elif test_codes is None or test_factors is None:
        raise ValueError("test_codes and test_factors are needed, unless factors are continuous")
    else:
        test = as_test_split(test_codes, test_factors, like=train)
        labels, test_labels = _number_values(train[1][:, varying], test[1][:, varying])
        pairs = zip(_add_second(train[0]).T, _add_second(test[0]).T, strict=True)
        scores = np.stack(
            [_accuracies(x, labels, x_test, test_labels, cost) for x, x_test in pairs]
        )
    predictability = np.full((train[0].shape[1], len(varying)), np.nan)
    predictability[:, varying] = scores[: len(predictability)]
    ordered = np.sort(scores, axis=0)
    gaps = np.full(len(varying), np.nan)
    gaps[varying] = ordered[-1] - ordered[-2]
    return SapResult(
        score=float(gaps[varying].mean()),
        gaps=gaps,
        predictability=predictability,
        excluded_factors=tuple(np.flatnonzero(~varying).tolist()),
    )


def _add_second(codes: np.ndarray) -> np.ndarray:
    """The codes, and beside a single one a constant code, so that there is a second best."""
    return codes if codes.shape[1] > 1 else np.pad(codes, ((0, 0), (0, 1)))


def _squared_correlations(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return `(K, F)` for codes `(N, K)` and factors `(N, F)`; 0 for a constant code."""
    x = codes - codes.mean(axis=0, dtype=np.float64)
    y = factors - factors.mean(axis=0)
    variances = (x**2).sum(axis=0) / (len(x) - 1)
    y /= np.sqrt((y**2).sum(axis=0))
    x[:, variances <= CONSTANT_BELOW] = 0
    lengths = np.where(variances <= CONSTANT_BELOW, 1, np.sqrt((x**2).sum(axis=0)))
    return np.square((x / lengths).T @ y)


def _number_values(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of each factor, numbered from 0; −1 for a test value that training did not have.

    Args:
        train: Shape `(N, F)`.
        test: Shape `(M, F)`.
    """
    labels, test_labels = [], []
    for column, test_column in zip(train.T, test.T, strict=True):
        values, numbers = np.unique(column, return_inverse=True)
        nearest = np.searchsorted(values, test_column).clip(max=len(values) - 1)
        labels.append(numbers)
        test_labels.append(np.where(values[nearest] == test_column, nearest, -1))
    return np.stack(labels, axis=1), np.stack(test_labels, axis=1)


def _accuracies(
    code: np.ndarray,
    labels: np.ndarray,
    test_code: np.ndarray,
    test_labels: np.ndarray,
    cost: float,
) -> np.ndarray:
    """Test accuracies `(F,)` of one code `(N,)`, `(M,)` for labellings `(N, F)`, `(M, F)`."""
    slopes, intercepts = fit_one_feature_svms(code, labels, cost=cost)
    ends = np.cumsum(labels.max(axis=0) + 1)[:-1]
    predicted = [
        (test_code[:, None] * w + b).argmax(axis=1)  # (M, V)
        for w, b in zip(np.split(slopes, ends), np.split(intercepts, ends), strict=True)
    ]
    return (np.stack(predicted, axis=1) == test_labels).mean(axis=0)
