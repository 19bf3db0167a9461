"""Accuracy of a classifier."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from disentangle.metrics.inputs import Array, as_floating, as_numbers
from disentangle.metrics.results import Result


@dataclass(frozen=True)
class AccuracyResult(Result):
    """Result of `accuracy`.

    Attributes:
        score: Share of the images whose class has the largest logit, in `[0, 1]`.
        top_5: Share of those whose class is among the five largest.
        cross_entropy: Mean of `−log p` of the right class, in nats.
        confusion: How many images of each class (rows) were taken for each (columns), int64.
    """

    score: float
    top_5: float
    cross_entropy: float
    confusion: NDArray[np.int64]


def accuracy(logits: Array, labels: Array) -> AccuracyResult:
    """Accuracy of a classifier, with top-5 accuracy, cross-entropy and confusion matrix.

    Args:
        logits: Unnormalised logarithms of the probabilities of classes, `(N, K)`.
        labels: The right classes, integers `(N,)` from 0 to `K − 1`.

    Raises:
        ValueError: As `as_numbers`, if a shape or type is another, a label is out of range, or a
            logit is not finite.

    Examples:
        >>> result = accuracy(np.eye(3), np.array([0, 1, 1]))
        >>> round(result.score, 3), result.top_5, result.confusion.tolist()
        (0.667, 1.0, [[1, 0, 0], [0, 1, 1], [0, 0, 0]])
    """
    X, y = _checked(logits, labels)
    classes = X.shape[1]
    top = X.topk(min(5, classes), dim=1).indices
    confusion = torch.bincount(y * classes + top[:, 0], minlength=classes**2)
    return AccuracyResult(
        score=(top[:, 0] == y).double().mean().item(),
        top_5=(top == y[:, None]).any(1).double().mean().item(),
        cross_entropy=cross_entropy(X, y).item(),
        confusion=confusion.reshape(classes, classes).numpy(),  # (K²,) -> (K, K)
    )


def _checked(logits: Array, labels: Array) -> tuple[torch.Tensor, torch.Tensor]:
    X, y = as_numbers("logits", logits), as_numbers("labels", labels)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"logits must have the shape (N, K) with N, K ≥ 1, got {X.shape}")
    if y.shape != X.shape[:1] or y.dtype.kind == "f":
        raise ValueError(f"labels must be integers ({len(X)},), got {y.dtype} of shape {y.shape}")
    X, y = as_floating("logits", X).astype(np.float64), y.astype(np.int64)
    if y.min() < 0 or y.max() >= X.shape[1]:
        wrong = y[(y < 0) | (y >= X.shape[1])][0]
        raise ValueError(f"labels must be from 0 to {X.shape[1] - 1}, got {wrong}")
    return torch.from_numpy(X), torch.from_numpy(y)
