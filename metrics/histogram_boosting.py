"""Gradient boosting of all classes at once, on binned features.

Friedman, Greedy Function Approximation: A Gradient Boosting Machine, Annals of Statistics 2001,
https://doi.org/10.1214/aos/1013203451, algorithm 6; with histograms in place of sorted features.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
from scipy.sparse import csc_array
from scipy.special import softmax

# of the decrease of the error, relative: a copy of a feature, or its negative, must be as good
SINGLE_PRECISION = 1e-5

# times the mean of the gaps around it: of 80 gaps between points that come at random, one is so
# wide in four cases of a thousand
WIDE = 10.0

BLOCK = 2**15  # points whose sums are taken at once: a few megabytes per class
FLAT = 1e-150  # curvature of the log-loss in a leaf, up to which scikit-learn takes no step


@dataclass(frozen=True, eq=False)
class BoostingResult:
    """Result of `fit_histogram_boosting`.

    Attributes:
        importance: Share of each feature in the decrease of the squared error, shape `(K,)`; adds
            up to 1, or is zero where no feature helps.
        predictions: Label of each training point, shape `(N,)`.
        test_predictions: Label of each test point, shape `(M,)`.
    """

    importance: np.ndarray
    predictions: np.ndarray
    test_predictions: np.ndarray


def quantile_bins(
    features: np.ndarray, test_features: np.ndarray, *, bins: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the bins that features fall into: equally full ones on the training points.

    A feature with at most `bins` different values has one bin for each. Where points come in
    clusters, a bin ends at the wide gap between them, if one is within half a bin.

    Args:
        features: Shape `(N, K)`, finite.
        test_features: Shape `(M, K)`.
        bins: Bins per feature, at least 2.

    Returns:
        Integers from 0 to `bins − 1` of shapes `(N, K)` and `(M, K)`.

    Examples:
        >>> train, test = quantile_bins(np.arange(8.0)[:, None], np.array([[-1.0], [3.5]]), bins=4)
        >>> train.ravel(), test.ravel()
        (array([0, 0, 1, 1, 2, 2, 3, 3]), array([0, 1]))
    """
    numbers, test_numbers = [], []
    for x, test_x in zip(features.T, test_features.T, strict=True):
        edges = _cut(np.sort(x), bins)
        numbers.append(np.searchsorted(edges, x, side="right"))
        test_numbers.append(np.searchsorted(edges, test_x, side="right"))
    return np.stack(numbers, axis=1), np.stack(test_numbers, axis=1)


def _cut(x: np.ndarray, bins: int) -> np.ndarray:
    """The least value of each bin but the first, of sorted values `(N,)`."""
    values = np.unique(x)
    if len(values) <= bins:
        return values[1:]
    # rounded to the nearest, the bins of the negative of a feature mirror those of the feature
    cuts = np.rint(np.arange(1, bins) * len(x) / bins).astype(int)
    cuts = _move_to_gaps(x, cuts)
    # where many points share a value, the nearer end of theirs: zeros stay apart from the rest
    starts, ends = (np.searchsorted(x, x[cuts], side=side) for side in ("left", "right"))
    cuts = np.where(cuts - starts <= ends - cuts, starts, ends)
    return np.unique(x[cuts[(cuts > 0) & (cuts < len(x))]])


def _move_to_gaps(x: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The cuts, each moved to the widest gap within half a bin, if that is wide.

    Args:
        x: Sorted values, shape `(N,)`.
        cuts: Positions in `x`, ascending, one between each two bins.
    """
    gaps = np.diff(x, prepend=x[:1])  # before each value
    # not to the ends, where gaps are wide in any distribution with tails
    half = len(x) / (2 * (len(cuts) + 1))
    firsts = np.ceil(cuts - half).astype(int).clip(min=1)
    lasts = np.floor(cuts + half).astype(int)
    moved = cuts.copy()
    for i, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        around = gaps[first : last + 1]
        widest = around.argmax()
        others = (around.sum() - around[widest]) / max(1, len(around) - 1)
        if around[widest] > WIDE * others:
            moved[i] = first + widest
    return moved


def fit_histogram_boosting(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    *,
    stages: int = 100,
    rate: float = 0.1,
    depth: int = 3,
    seed: int = 0,
) -> BoostingResult:
    """Fit a gradient-boosted classifier like scikit-learn's, for features with few values.

    Each stage fits one regression tree per class to the residuals `y − p` by least squares, and
    adds one Newton step of the log-loss per leaf. Splits, importances and leaves are those of
    `sklearn.ensemble.GradientBoostingClassifier` on the same features, up to rounding to single
    precision and to the random choice among features whose best splits are equally good.

    One product of a sparse indicator matrix with the residuals gives the sums per value of all
    features and classes: no sorting, and no loop over classes.

    Args:
        features: Integers from 0 to 255, shape `(N, K)`.
        labels: Integers of shape `(N,)` that count from 0, each value taken, at least two.
        test_features: As `features`, shape `(M, K)`.
        stages: Trees per class.
        rate: Share of each Newton step that is taken.
        depth: Splits between root and leaf, at most 8.
        seed: Seed for choosing among features.

    Examples:
        >>> features = np.tile([[0, 0], [0, 1], [1, 0], [1, 1]], (10, 1))
        >>> result = fit_histogram_boosting(features, features[:, 1], features[:4])
        >>> result.importance.round(3), result.test_predictions
        (array([0., 1.]), array([0, 1, 0, 1]))
    """
    rng = np.random.default_rng(seed)
    histogram = _Histogram(features)
    targets = labels == np.arange(labels.max() + 1)[:, None]  # (C, N)
    prior = np.log(targets.mean(axis=1))
    train, test = _Forest(features, prior), _Forest(test_features, prior)
    importance = np.zeros(features.shape[1])
    for _ in range(stages):
        residuals = targets - softmax(train.scores, axis=0)
        by_point = np.ascontiguousarray(residuals.T, dtype=np.float32)  # (N, C)
        train.climb()
        test.climb()
        sums = None
        for _ in range(depth):
            sums = histogram.refine(sums, by_point, train.nodes)
            feature, threshold, gain = _best_splits(sums, rng)
            importance += np.bincount(feature.ravel(), gain.ravel(), minlength=len(importance))
            train.descend(feature, threshold)
            test.descend(feature, threshold)
        steps = rate * _newton_steps(residuals, targets, train.nodes, leaves=2**depth)
        train.add(steps)
        test.add(steps)
    return BoostingResult(
        importance=importance / max(importance.sum(), np.finfo(np.float64).tiny),
        predictions=train.scores.argmax(axis=0),
        test_predictions=test.scores.argmax(axis=0),
    )


class _Forest:
    """Scores of points, and where each of them stands in one tree per class.

    The children of node `j` of `J` are `j` (left) and `J + j` (right).
    """

    def __init__(self, features: np.ndarray, prior: np.ndarray) -> None:
        self.features = np.ascontiguousarray(features.T, dtype=np.uint8)  # (K, N)
        self.scores = np.repeat(prior[:, None], len(features), axis=1)  # (C, N)
        self.nodes = np.zeros(self.scores.shape, dtype=np.uint8)

    def climb(self) -> None:
        """Back to the roots."""
        self.nodes[:] = 0

    def descend(self, feature: np.ndarray, threshold: np.ndarray) -> None:
        """To the children, by the splits `(J, C)` of the nodes: right if above the threshold."""
        right = np.zeros(self.nodes.shape, dtype=bool)
        for j, (f, t) in enumerate(zip(feature, threshold, strict=True)):
            right |= (self.nodes == j) & (self.features[f] > t[:, None])
        self.nodes += np.uint8(len(feature)) * right

    def add(self, steps: np.ndarray) -> None:
        """Adds the values `(C, leaves)` of the leaves to the scores."""
        for scores, values, nodes in zip(self.scores, steps, self.nodes, strict=True):
            scores += values[nodes]


class _Histogram:
    """Sums over the points that share a value of a feature."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = features.shape[1]
        self.values = int(features.max()) + 1
        slices = [slice(start, start + BLOCK) for start in range(0, len(features), BLOCK)]
        self.blocks = [(rows, self._indicate(features[rows])) for rows in slices]

    def _indicate(self, features: np.ndarray) -> csc_array:
        """Sparse indicators `(B·K, n)` of the values of points `(n, K)`."""
        rows = (features * self.features + np.arange(self.features)).astype(np.int32).ravel()
        starts = np.arange(0, len(rows) + 1, self.features, dtype=np.int32)
        indicators = (np.ones(len(rows), dtype=np.float32), rows, starts)  # a column per point
        return csc_array(indicators, shape=(self.values * self.features, len(features)))

    def refine(
        self, parents: np.ndarray | None, residuals: np.ndarray, nodes: np.ndarray
    ) -> np.ndarray:
        """Sums of residuals and numbers of points per node, shape `(B, K, 2, J, C)`.

        Args:
            parents: The sums of the level above; None at the roots.
            residuals: Shape `(N, C)`: a point's are added to its bins in one go.
            nodes: Nodes of the points in the trees, shape `(C, N)`.
        """
        # of two children, the left one is summed and the right one is what is left of the parent
        summed = 1 if parents is None else parents.shape[3]
        sums = reduce(
            np.add,
            (
                indicators @ _weigh(residuals[rows], nodes[:, rows], summed)
                for rows, indicators in self.blocks
            ),
        )
        sums = sums.reshape(self.values, self.features, 2, summed, -1)  # (B·K, 2·J·C) → …
        return sums if parents is None else np.concatenate([sums, parents - sums], axis=3)


def _weigh(residuals: np.ndarray, nodes: np.ndarray, count: int) -> np.ndarray:
    """Residuals and ones of the points in each of the first nodes, zero elsewhere.

    Args:
        residuals: Shape `(n, C)`.
        nodes: Node of each point in each tree, shape `(C, n)`.
        count: Number `J` of nodes.

    Returns:
        Shape `(n, 2·J·C)`.
    """
    weights = np.empty((len(residuals), 2, count, residuals.shape[1]), dtype=np.float32)
    standing = np.ascontiguousarray(nodes.T)  # (n, C)
    for j in range(count):
        weights[:, 1, j] = standing == j
        np.multiply(residuals, weights[:, 1, j], out=weights[:, 0, j])
    return weights.reshape(len(residuals), -1)  # (n, 2, J, C) → (n, 2·J·C)


def _best_splits(
    sums: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Feature, threshold and decrease of the squared error of each node's best split, `(J, C)`.

    Args:
        sums: Sums of residuals and numbers of points, shape `(B, K, 2, J, C)`.
        rng: Draws among features with equally good splits.
    """
    left = sums.copy()
    for below, at in pairwise(left):  # several times faster than cumsum(axis=0)
        at += below
    G, n = left[:, :, 0], left[:, :, 1]  # (B, K, J, C)
    total, points = G[-1], n[-1]
    room = n * (points - n)
    # N (G − n ΣG/N)² / n (N − n) without its first factor; 0 where a child is empty
    gain = n * (-total / np.maximum(points, 1))
    gain += G
    np.square(gain, out=gain)
    gain *= room > 0
    gain /= np.maximum(room, 1, out=room)
    threshold, best = gain.argmax(axis=0), gain.max(axis=0) * points  # (K, J, C)
    equal = best >= (1 - SINGLE_PRECISION) * best.max(axis=0)
    draw = rng.random(best.shape, dtype=np.float32)
    feature = np.where(equal, draw, -1).argmax(axis=0)[None]  # (1, J, C)
    threshold = np.take_along_axis(threshold, feature, axis=0).astype(np.uint8)
    return feature[0], threshold[0], np.take_along_axis(best, feature, axis=0)[0]


def _newton_steps(
    residuals: np.ndarray, targets: np.ndarray, nodes: np.ndarray, *, leaves: int
) -> np.ndarray:
    """One Newton step of the log-loss in each leaf, `(C, leaves)`; 0 where it has no curvature.

    In double precision, like the scores: with many classes there are steps of more than 1e100.
    """
    classes = len(residuals)
    steps = np.zeros((classes, leaves))
    for c in range(classes):
        # rounded like the residual, as in scikit-learn: no curvature where that is 1
        p = targets[c] - residuals[c]
        slope = np.bincount(nodes[c], residuals[c], minlength=leaves)
        curvature = np.bincount(nodes[c], p * (1 - p), minlength=leaves)
        np.divide(slope, curvature, out=steps[c], where=curvature > FLAT)
    return steps * ((classes - 1) / classes)
