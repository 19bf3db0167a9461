"""Gradient boosting of all classes at once, on binned features.

Friedman, Greedy Function Approximation: A Gradient Boosting Machine, Annals of Statistics 2001,
https://doi.org/10.1214/aos/1013203451, algorithm 6; with histograms in place of sorted features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, one_hot


@dataclass(frozen=True, eq=False)
class BoostingResult:
    """What `fit_histogram_boosting` found.

    Attributes:
        importance: Share of each feature in the decrease of the squared error, shape `(K,)`; adds
            up to 1, or is zero where no feature varies.
        predictions: Label of each training point, shape `(N,)`.
        test_predictions: Label of each test point, shape `(M,)`.
    """

    importance: np.ndarray
    predictions: np.ndarray
    test_predictions: np.ndarray


def quantile_bins(
    features: np.ndarray, test_features: np.ndarray, *, bins: int
) -> tuple[Tensor, Tensor]:
    """Numbers the bins that features fall into: equally full ones on the training points.

    A feature with at most `bins` different values has one bin for each.

    Args:
        features: Shape `(N, K)`, finite.
        test_features: Shape `(M, K)`.
        bins: Bins per feature, at least 2.

    Returns:
        Integers from 0 to `bins − 1` of shapes `(N, K)` and `(M, K)`, int16.

    Examples:
        >>> train, test = quantile_bins(np.arange(8.0)[:, None], np.array([[-1.0], [3.5]]), bins=4)
        >>> train.ravel().tolist(), test.ravel().tolist()
        ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1])
    """
    cuts = np.arange(1, bins) * len(features) // bins
    numbers, test_numbers = [], []
    for x, test_x in zip(features.T, test_features.T, strict=True):
        values = np.unique(x)
        edges = values[1:] if len(values) <= bins else np.unique(np.sort(x)[cuts])
        numbers.append(np.searchsorted(edges, x, side="right"))
        test_numbers.append(np.searchsorted(edges, test_x, side="right"))
    train, test = np.stack(numbers, axis=1), np.stack(test_numbers, axis=1)
    return torch.from_numpy(train).short(), torch.from_numpy(test).short()


def fit_histogram_boosting(
    features: Tensor,
    labels: Tensor,
    test_features: Tensor,
    *,
    bins: int,
    stages: int = 100,
    rate: float = 0.1,
    depth: int = 3,
    seed: int = 0,
) -> BoostingResult:
    """What `sklearn.ensemble.GradientBoostingClassifier` does, for features in few bins.

    Each stage fits one regression tree per class to the residuals `y − p` by least squares, and
    adds one Newton step of the log-loss per leaf. A tree's splits, importances and leaves are those
    of scikit-learn on the binned features, up to rounding to single precision and the order in
    which equally good splits are drawn. One product of the binned features' indicators with the
    residuals gives the histograms of all classes and features.

    Args:
        features: Integers from 0 to `bins − 1` of shape `(N, K)`.
        labels: Integers of shape `(N,)` that count from 0, each value taken, at least two.
        test_features: As `features`, of shape `(M, K)`.
        bins: Bins per feature.
        stages: Trees per class.
        rate: Share of each Newton step that is taken.
        depth: Splits between root and leaf.
        seed: Of the choice among features whose best splits are equally good.

    Examples:
        >>> features = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]).short().repeat(10, 1)
        >>> result = fit_histogram_boosting(features, features[:, 1].long(), features[:4], bins=2)
        >>> result.importance, result.test_predictions
        (array([0., 1.]), array([0, 1, 0, 1]))
    """
    generator = torch.Generator().manual_seed(seed)
    targets = one_hot(labels).float()  # (N, C)
    histogram = _Histogram(features, targets.shape[1], bins)
    prior = targets.mean(dim=0).log()
    train, test = _Points(features, prior), _Points(test_features, prior)
    importance = torch.zeros(features.shape[1], dtype=torch.float64)
    for _ in range(stages):
        p = train.scores.softmax(dim=1)
        residuals = targets - p
        train.climb()
        test.climb()
        sums = None
        for _ in range(depth):
            sums = histogram.refine(sums, residuals, train.slots)
            feature, threshold, gain = _best_splits(sums, generator)
            importance.index_add_(0, feature, gain.double())
            train.descend(feature, threshold)
            test.descend(feature, threshold)
        steps = rate * _newton_steps(residuals, p, train.slots, leaves=2**depth)
        train.add(steps)
        test.add(steps)
    total = importance.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return BoostingResult(
        (importance / total).numpy(), train.scores.argmax(1).numpy(), test.scores.argmax(1).numpy()
    )


class _Points:
    """Points on their way down one tree per class, and their scores.

    `slots` holds `node · C + class`; the children of node `j` of `J` are `j` (left) and `J + j`.
    """

    def __init__(self, features: Tensor, prior: Tensor) -> None:
        self.features = features  # (N, K)
        self.scores = prior.repeat(len(features), 1)  # (N, C)
        self.roots = torch.arange(len(prior), dtype=torch.int32).repeat(len(features), 1)
        self.slots = self.roots.clone()

    def climb(self) -> None:
        """Back to the roots."""
        self.slots.copy_(self.roots)

    def descend(self, feature: Tensor, threshold: Tensor) -> None:
        """To the children, by the splits `(J·C,)` of the nodes: right if above the threshold."""
        slots = self.slots.view(-1)
        values = self.features.gather(1, feature.index_select(0, slots).view_as(self.slots))
        right = values > threshold.index_select(0, slots).view_as(self.slots)
        self.slots += right.int().mul_(len(feature))

    def add(self, steps: Tensor) -> None:
        """Adds the values `(2^depth·C,)` of the leaves to the scores."""
        self.scores += steps.index_select(0, self.slots.view(-1)).view_as(self.scores)


class _Histogram:
    """Sums over the points of each bin of each feature."""

    def __init__(self, features: Tensor, classes: int, bins: int) -> None:
        self.shape = (features.shape[1], bins)
        columns = features.long() + bins * torch.arange(features.shape[1])  # (N, K)
        columns = columns.T.flatten()  # (N, K) → (K·N,)
        # the points of each bin of each feature, one bin after the other
        self.points = columns.argsort(stable=True) % len(features)
        counts = columns.bincount(minlength=features.shape[1] * bins)
        self.starts = counts.cumsum(0) - counts
        self.classes = torch.arange(classes, dtype=torch.int32)

    def refine(self, parents: Tensor | None, residuals: Tensor, slots: Tensor) -> Tensor:
        """Sums of residuals and numbers of points per node, shape `(K, B, 2, J, C)`.

        Args:
            parents: The sums of the level above; None at the roots.
            residuals: Shape `(N, C)`.
            slots: Of the points, shape `(N, C)`.
        """
        nodes = 1 if parents is None else parents.shape[3]
        # of two children, the left one is summed and the right one is what is left of the parent
        left = self.classes + len(self.classes) * torch.arange(nodes, dtype=torch.int32)[:, None]
        weights = residuals.new_empty(len(residuals), 2, *left.shape)  # (N, 2, J, C)
        weights[:, 1] = slots[:, None] == left
        torch.mul(residuals[:, None], weights[:, 1], out=weights[:, 0])
        # (N, 2·J·C) → (K·B, 2·J·C)
        sums = embedding_bag(self.points, weights.flatten(1), self.starts, mode="sum")
        sums = sums.view(*self.shape, 2, *left.shape)
        return sums if parents is None else torch.cat([sums, parents - sums], dim=3)


def _best_splits(sums: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Feature, threshold and decrease of the squared error of each node's best split, `(J·C,)`.

    Args:
        sums: Sums of residuals and numbers of points, shape `(K, B, 2, J, C)`.
        generator: Draws among features with equally good splits.
    """
    G, n = sums.cumsum(dim=1).unbind(dim=2)  # left of the split, (K, B, J, C)
    total, points = G[:, -1:], n[:, -1:]
    # N (G − n ΣG/N)² / n (N − n), without the first factor; 0 where a child is empty
    gain = torch.addcmul(G, n, total / points.clamp(min=1), value=-1).square_()
    gain, threshold = gain.div_((n * (points - n)).clamp_(min=1)).max(dim=1)  # (K, J, C)
    gain = gain * points.squeeze(1)
    ties = gain == gain.amax(dim=0)
    feature = (torch.rand(ties.shape, generator=generator) * ties).argmax(dim=0, keepdim=True)
    return (
        feature.view(-1),
        threshold.gather(0, feature).view(-1).short(),
        gain.gather(0, feature).view(-1),
    )


def _newton_steps(residuals: Tensor, p: Tensor, slots: Tensor, *, leaves: int) -> Tensor:
    """One Newton step of the log-loss in each leaf, shape `(leaves·C,)`; 0 in an empty one."""
    classes = residuals.shape[1]
    slots, empty = slots.view(-1).long(), residuals.new_zeros(leaves * classes)
    slope = empty.scatter_add(0, slots, residuals.view(-1))
    curvature = empty.scatter_add(0, slots, (p * (1 - p)).view(-1))
    steps = slope / curvature * ((classes - 1) / classes)
    return torch.where(curvature > 0, steps, empty)
