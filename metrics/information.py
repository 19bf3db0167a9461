"""Mutual information of discrete variables, for all pairs of columns at once."""

import numpy as np
from scipy.sparse import csr_array
from scipy.special import xlogy


def discretize(codes: np.ndarray, bins: int) -> np.ndarray:
    """Numbers the equal-width histogram bins that codes fall into, per code.

    As disentanglement_lib does it, `np.digitize(x, np.histogram(x, bins)[1][:-1])`: a bin holds
    its left edge, and the last one its right edge too. Edges are rounded to the precision of the
    codes. Unlike `np.histogram`, codes that vary in their last bits only are not refused.

    Args:
        codes: Shape `(N, K)`, finite.
        bins: Number of bins.

    Returns:
        Integers from 1 to `bins` of shape `(N, K)`; a constant code has one value.

    Examples:
        >>> discretize(np.array([[0.0], [0.4], [0.5], [1.0]]), bins=2).ravel()
        array([1, 1, 2, 2])
    """
    low, high = codes.min(axis=0), codes.max(axis=0)
    half = np.where(low == high, 0.5, 0.0).astype(codes.dtype)
    edges = np.linspace(low - half, high + half, bins + 1, dtype=codes.dtype)  # (bins + 1, K)
    return np.stack([np.digitize(x, e) for x, e in zip(codes.T, edges[:-1].T, strict=True)], axis=1)


def mutual_information(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mutual information, in nats, of every column of `left` with every column of `right`.

    The plug-in estimate from the joint counts, `Σ p(a, b) log(p(a, b) / (p(a) p(b)))`: it is
    biased upwards, by about `(|A| − 1)(|B| − 1) / 2N`.

    Args:
        left: Integers of shape `(N, K)`.
        right: Integers of shape `(N, F)`.

    Returns:
        Shape `(K, F)`, float64; exactly 0 where a column is constant.

    Examples:
        >>> coin, copy = np.array([[0], [0], [1], [1]]), np.array([[0, 7], [0, 7], [1, 7], [1, 7]])
        >>> mutual_information(coin, copy).round(4)
        array([[0.6931, 0.    ]])
    """
    one_hot_left, starts_left = _one_hot(left)
    one_hot_right, starts_right = _one_hot(right)
    joint = (one_hot_left.T @ one_hot_right).toarray()  # (Σ|A|, Σ|B|): the counts of all pairs
    independent = np.outer(one_hot_left.sum(axis=0), one_hot_right.sum(axis=0))
    # the ratio is of exact integers, so that the terms of a constant column are exactly zero
    terms = xlogy(joint, len(left) * joint / independent) / len(left)
    per_left = np.add.reduceat(terms, starts_left, axis=0)
    return np.maximum(np.add.reduceat(per_left, starts_right, axis=1), 0)


def entropy(values: np.ndarray) -> np.ndarray:
    """Entropy, in nats, of every column.

    Args:
        values: Integers of shape `(N, F)`.

    Returns:
        Shape `(F,)`, float64.

    Examples:
        >>> entropy(np.array([[0, 5], [1, 5]])).round(4)
        array([0.6931, 0.    ])
    """
    one_hot, starts = _one_hot(values)
    p = one_hot.sum(axis=0) / len(values)
    return np.maximum(np.add.reduceat(-xlogy(p, p), starts), 0)


def count_values(values: np.ndarray) -> np.ndarray:
    """How many different values each column of `(N, F)` takes, of shape `(F,)`."""
    return np.array([len(np.unique(column)) for column in values.T])


def _one_hot(values: np.ndarray) -> tuple[csr_array, np.ndarray]:
    """One indicator column per value of each column, side by side, and where each block starts."""
    n, columns = values.shape
    labels = np.stack([np.unique(x, return_inverse=True)[1] for x in values.T], axis=1)  # (N, K)
    sizes = labels.max(axis=0) + 1
    starts = np.cumsum(sizes) - sizes
    indices = (labels + starts).ravel()  # (N·K,): K ones in each row
    indicators = (np.ones(n * columns), indices, np.arange(0, n * columns + 1, columns))
    return csr_array(indicators, shape=(n, sizes.sum())), starts
