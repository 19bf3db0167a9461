"""Mutual information of a continuous and a discrete variable from distances to neighbours.

Ross, Mutual Information between Discrete and Continuous Data Sets, PLoS ONE 2014,
https://doi.org/10.1371/journal.pone.0087357.
"""

import numpy as np
from scipy.special import digamma

RELATIVE_NOISE = 1e-10  # that parts equal codes, as Kraskov et al. 2004 advise


def knn_information(
    codes: np.ndarray, labels: np.ndarray, *, neighbours: int, seed: int
) -> np.ndarray:
    """Mutual information, in nats, of every code with every labelling.

    Ross 2014: `ψ(N) + ⟨ψ(k)⟩ − ⟨ψ(Nᵢ)⟩ − ⟨ψ(mᵢ)⟩`, with the number `Nᵢ` of points that have the
    label of point `i` and the number `mᵢ` of all points that are nearer to it than the `k`-th
    nearest of those. Estimates can be below zero, where they are replaced by 0.

    It is `sklearn.feature_selection.mutual_info_classif(code, labels, n_neighbors=neighbours,
    random_state=seed)` for one code after the other, a few dozen times faster: neighbours on a line
    are neighbours in sorted order. Of a label with at most `2 · neighbours` points, scikit-learn
    rounds the distances to about 1e-8, which matters where codes are equal; here they are exact.

    Args:
        codes: Shape `(N, K)`, floating-point.
        labels: Integers of shape `(N, F)`; each column with a value that two points have.
        neighbours: The number `k`, or one less than a label has points.
        seed: Seed for the noise that separates equal codes.

    Returns:
        Shape `(K, F)`, float64; exactly 0 for a constant code.

    Examples:
        >>> coin = np.random.default_rng(0).integers(0, 2, size=(1_000, 1))
        >>> codes = np.concatenate([coin, 0 * coin], axis=1).astype(float)
        >>> knn_information(codes, coin, neighbours=10, seed=0).round(2)
        array([[0.69],
               [0.  ]])
    """
    noise = np.random.RandomState(seed).standard_normal(len(codes))  # noqa: NPY002: scikit-learn's
    information = np.zeros((codes.shape[1], labels.shape[1]))
    for k in np.flatnonzero(np.ptp(codes, axis=0) > 0):
        code = _standardise(codes[:, k].astype(np.float64))
        code += RELATIVE_NOISE * max(1, np.mean(np.abs(code))) * noise
        information[k] = [_one_pair(code, column, neighbours) for column in labels.T]
    return information


def _standardise(code: np.ndarray) -> np.ndarray:
    """A code that varies, with mean 0 and standard deviation 1."""
    # from the least value first: the deviations of a code far from 0 keep their digits
    code = (code - code.min()) / np.ptp(code)
    return (code - code.mean()) / code.std()


def _one_pair(code: np.ndarray, labels: np.ndarray, neighbours: int) -> float:
    """The estimate for one code `(N,)` and one labelling `(N,)`."""
    _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
    kept = counts[labels] > 1  # the only point of its label has no neighbour
    code, labels = code[kept], labels[kept]
    order = np.lexsort((code, labels))
    code, counts = code[order], counts[labels[order]]
    starts = np.searchsorted(labels[order], labels[order])
    k = np.minimum(neighbours, counts - 1)
    # the radius of the published protocol: just below the distance
    radii = np.nextafter(_neighbour_distances(code, starts, starts + counts, k), 0)
    nearer = _count_within(code, radii)
    terms = digamma(k) - digamma(counts) - digamma(nearer)
    return max(0.0, float(digamma(len(code)) + terms.mean()))


def _neighbour_distances(
    code: np.ndarray, starts: np.ndarray, ends: np.ndarray, k: np.ndarray
) -> np.ndarray:
    """Distance from every point to the `k`-th nearest of the points `starts … ends − 1`.

    These are sorted: the point and its `k` nearest are `k + 1` points in a row.
    """
    points = np.arange(len(code))
    distances = np.full(len(code), np.inf)
    for below in range(k.max() + 1):  # how many of the k are below the point
        first, last = points - below, points - below + k
        inside = (below <= k) & (first >= starts) & (last < ends)
        first, last = first[inside], last[inside]
        x = code[inside]
        farther = np.maximum(x - code[first], code[last] - x)
        distances[inside] = np.minimum(distances[inside], farther)
    return distances


def _count_within(code: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Count the points within the radius of each point, itself included."""
    ordered = np.sort(code)
    padded = np.concatenate([[-np.inf], ordered, [np.inf]])
    low = np.searchsorted(ordered, code - radii, side="left")
    high = np.searchsorted(ordered, code + radii, side="right")
    # the ends of the interval are rounded, a difference of close numbers is not: compare those
    while (moves := code - padded[low] <= radii).any():
        low = low - moves
    while (moves := padded[high + 1] - code <= radii).any():
        high = high + moves
    while (moves := code - padded[low + 1] > radii).any():
        low = low + moves
    while (moves := padded[high] - code > radii).any():
        high = high - moves
    return high - low
