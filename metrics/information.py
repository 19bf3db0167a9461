"""Mutual information of discrete variables, for all pairs of columns at once."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array, csr_array
from scipy.special import xlogy

BLOCK = 2**22  # joint counts that are held at once: 200 megabytes with all that is made of them


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
    a, b = _Indicators.of(left), _Indicators.of(right)
    step = _block_size(a, b)
    blocks = [_block_information(a.select(k, k + step), b) for k in range(0, len(a.sizes), step)]
    return np.concatenate(blocks)


def mutual_information_of_pairs(values: np.ndarray) -> np.ndarray:
    """Mutual information, in nats, of every pair of columns, as by `mutual_information`.

    Args:
        values: Integers of shape `(N, K)`.

    Returns:
        Shape `(K, K)`, float64, symmetric; a column's entropy on the diagonal.

    Examples:
        >>> mutual_information_of_pairs(np.array([[0, 0], [0, 1], [1, 0], [1, 1]])).round(4)
        array([[0.6931, 0.    ],
               [0.    , 0.6931]])
    """
    indicators, width = _Indicators.of(values), values.shape[1]
    information = np.empty((width, width))
    step = _block_size(indicators, indicators)
    for k in range(0, width, step):  # each pair once
        block = _block_information(indicators.select(k, k + step), indicators.select(k, width))
        information[k:, k : k + step] = block.T
        information[k : k + step, k:] = block
    return information


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
    indicators = _Indicators.of(values)
    p = indicators.counts / len(values)
    terms = np.bincount(indicators.owners, -xlogy(p, p), minlength=values.shape[1])
    return np.maximum(terms, 0)


def count_values(values: np.ndarray) -> np.ndarray:
    """Count the different values `(F,)` of each column of `(N, F)`."""
    return np.array([len(np.unique(column)) for column in values.T])


@dataclass(frozen=True)
class _Indicators:
    """Indicators of the points that have each value of each column.

    Attributes:
        rows: One row per value, shape `(S, N)`.
        counts: Number of points that have each value, shape `(S,)`.
        owners: Column of each value, ascending, shape `(S,)`.
        sizes: Number of values of each of the `K` columns, shape `(K,)`.
    """

    rows: csr_array
    counts: np.ndarray
    owners: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "_Indicators":
        """The indicators of integers `(N, K)`."""
        n, columns = values.shape
        labels = np.stack([np.unique(x, return_inverse=True)[1] for x in values.T], axis=1)
        sizes = labels.max(axis=0) + 1
        indices = (labels + np.cumsum(sizes) - sizes).ravel()  # (N·K,): K ones for each point
        ones = (np.ones(n * columns), indices, np.arange(0, n * columns + 1, columns))
        rows = csc_array(ones, shape=(sizes.sum(), n)).tocsr()
        counts = np.bincount(indices).astype(np.float64)
        return cls(rows, counts, np.repeat(np.arange(columns), sizes), sizes)

    def select(self, first: int, last: int) -> "_Indicators":
        """Those of the columns from `first` up to `last`, without it."""
        kept = slice(*np.searchsorted(self.owners, [first, last]))
        owners = self.owners[kept] - first
        return _Indicators(self.rows[kept], self.counts[kept], owners, self.sizes[first:last])


def _block_size(left: _Indicators, right: _Indicators) -> int:
    """Number of columns of `left` that have up to `BLOCK` joint counts with all of `right`."""
    points = left.rows.shape[1]
    most = min(points * len(right.sizes), int(left.sizes.max()) * len(right.counts))
    return max(1, BLOCK // most)


def _block_information(left: _Indicators, right: _Indicators) -> np.ndarray:
    """Mutual information `(K, F)` of `K` columns with `F` columns."""
    joint = (left.rows @ right.rows.T).tocoo()  # the counts that are not zero
    n, columns = left.rows.shape[1], len(right.sizes)
    independent = left.counts[joint.row] * right.counts[joint.col]
    # the ratio is of exact integers, so that the terms of a constant column are exactly zero
    terms = joint.data * np.log(n * joint.data / independent) / n
    pairs = left.owners[joint.row] * columns + right.owners[joint.col]
    information = np.bincount(pairs, terms, minlength=len(left.sizes) * columns)
    return np.maximum(information, 0).reshape(-1, columns)  # (K·F,) → (K, F)
