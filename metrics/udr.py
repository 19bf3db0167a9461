"""Unsupervised disentanglement ranking (UDR).

Duan et al., Unsupervised Model Selection for Variational Disentangled Representation Learning, ICLR
2020, https://arxiv.org/abs/1905.12614; in the protocol of disentanglement_lib, Locatello et al.,
ICML 2019, https://arxiv.org/abs/1811.12359.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from disentangle.metrics.inputs import Array, as_codes, as_floating, as_numbers, check_at_least
from disentangle.metrics.results import Result

MAX_STEPS = 50  # of the Lasso, per code; it takes about two


@dataclass(frozen=True, eq=False)
class UdrResult(Result):
    """Result of `udr`.

    Attributes:
        score: Mean of `per_run`.
        per_run: Score of each run, by which runs are ranked, shape `(R,)`.
        pairwise: Similarity of run i (row) and run j (column), the latter being predicted from the
            former with the Lasso, shape `(R, R)`; NaN on the diagonal.
        similarity: Similarity of every code of run i to every code of run j, shape `(R, R, K, K)`;
            0 for codes that are not informative, NaN where `i = j`.
        informative_codes: Shape `(R, K)`.
    """

    undefined = frozenset({"pairwise", "similarity"})

    score: float
    per_run: np.ndarray
    pairwise: np.ndarray
    similarity: np.ndarray
    informative_codes: np.ndarray


def udr(
    codes: Sequence[Array],
    *,
    kl: Sequence[Array] | Array | None = None,
    method: Literal["lasso", "spearman"] = "lasso",
    alpha: float = 0.1,
    kl_threshold: float = 0.01,
) -> UdrResult:
    """Agreement of the codes of several runs, up to permutation and sign.

    Duan et al. 2020, https://arxiv.org/abs/1905.12614: disentangled representations of the same
    data are alike, entangled ones differ from run to run. Let `S` be the matrix of similarities of
    the informative codes of two runs. The similarity of the runs is the mean of `max² / Σ` over the
    rows of `S`, averaged with its mean over the columns; a run's score is the median of its
    similarity with the others.

    Range: 0 to 1 with Spearman correlations; 0 to `1 − alpha` with the Lasso if the codes of a run
    are uncorrelated, as it shrinks: runs with equal codes get 0.9. Noise gets 0 with the Lasso, and
    about `1 / √N` with Spearman correlations.

    Blind to ground truth, and to what all runs have in common: runs that are entangled in the same
    way, such as one run copied, score highest. A run is scored by the company it is in, so that
    scores of different sets of runs do not compare.

    Protocol: disentanglement_lib's: standardised codes; absolute coefficients of the Lasso with
    `α = 0.1`, or absolute Spearman correlations; codes with a mean Kullback–Leibler divergence of
    at most 0.01 left out. Constant codes are left out too (they turn its Spearman scores into NaN,
    then 0), and a pair of runs of which one has no informative code gets 0 (there it raises). The
    threshold acts everywhere (0.01 is fixed in one place there). The Lasso is solved
    exactly, there to a tolerance of 1e-4.

    Each informative code of a run is regressed on those of each other run, each regression linear
    in their number: two runs of 3,000 codes take up to a minute of one core. `similarity` has
    `R² K²` numbers.

    Args:
        codes: For each of `R ≥ 2` runs, the codes of the same points in the same order, shape
            `(N, K)` with one `K`; means of the posterior as a rule.
        kl: For each run, the mean divergence of each code from the prior, shape `(R, K)`, in nats.
            Without it only constant codes are left out.
        method: What similarity is: `"lasso"` coefficients or `"spearman"` correlations.
        alpha: Weight of the Lasso's penalty, positive.
        kl_threshold: Divergence up to which a code is left out.

    Raises:
        ValueError: If the arguments do not fit together, or an entry is NaN or infinite.
        RuntimeError: If the Lasso does not converge.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.uniform(size=(1_000, 2))
        >>> round(udr([z, -z[:, ::-1], z]).score, 2)
        0.9
        >>> rotated = z @ [[0.8, 0.6], [-0.6, 0.8]]
        >>> udr([z, -z, rotated], method="spearman").per_run.round(1)
        array([0.7, 0.7, 0.5])
    """
    if method not in ("lasso", "spearman"):
        raise ValueError(f"method must be 'lasso' or 'spearman', got {method!r}")
    if not 0 < alpha < np.inf:
        raise ValueError(f"alpha must be positive and finite, got {alpha}")
    runs = _check_runs(codes)  # (R, N, K)
    informative = runs.min(axis=1) < runs.max(axis=1)
    if kl is not None:
        informative &= _check_divergences(kl, informative.shape) > kl_threshold
    z = _standardise(rankdata(runs, axis=1) if method == "spearman" else runs, informative)
    count, _, width = z.shape
    similarity = np.full((count, count, width, width), np.nan)
    pairwise = np.full((count, count), np.nan)
    for i, j in permutations(range(count), 2):
        # codes that are not informative cost nothing but their zeros
        x, y = z[i][:, informative[i]], z[j][:, informative[j]]
        found = np.abs(_correlate(x, y) if method == "spearman" else _regress(x, y, alpha))
        similarity[i, j] = 0
        similarity[i, j][np.ix_(informative[i], informative[j])] = found
        pairwise[i, j] = _compare(found)
    others = pairwise.T[~np.eye(count, dtype=bool)].reshape(count, -1)  # (R·(R − 1),) → (R, R − 1)
    per_run = np.median(others, axis=1)
    return UdrResult(
        score=float(per_run.mean()),
        per_run=per_run,
        pairwise=pairwise,
        similarity=similarity,
        informative_codes=informative,
    )


def _check_runs(codes: Sequence[Array]) -> np.ndarray:
    """The codes of all runs, float64 of shape `(R, N, K)`."""
    check_at_least(2, **{"the number of runs": len(codes)})
    runs = [as_codes(run).astype(np.float64) for run in _split("codes", codes)]
    shapes = [run.shape for run in runs]
    if len(set(shapes)) > 1:
        raise ValueError(f"all runs must have codes of one shape (N, K), got {shapes}")
    check_at_least(2, **{"the number of points": shapes[0][0]})
    return np.stack(runs)


def _check_divergences(kl: Sequence[Array] | Array, shape: tuple[int, ...]) -> np.ndarray:
    """The divergences as an array of the shape `(R, K)`."""
    rows = [as_floating("kl", as_numbers("kl", run)).astype(np.float64) for run in _split("kl", kl)]
    shapes = [row.shape for row in rows]
    if shapes != [shape[1:]] * shape[0]:
        raise ValueError(f"kl must have the shape {shape}, got rows of the shapes {shapes}")
    return np.stack(rows)


def _split(name: str, runs: Sequence[Array] | Array) -> Sequence[Array] | np.ndarray:
    """The items of a sequence, or the slices of one array along its first dimension."""
    return runs if isinstance(runs, Sequence) else np.atleast_1d(as_numbers(name, runs))


def _standardise(runs: np.ndarray, informative: np.ndarray) -> np.ndarray:
    """Codes `(R, N, K)` with mean 0 and variance 1; only centred where not informative."""
    z = runs - runs.mean(axis=1, keepdims=True)
    z /= np.where(informative, np.sqrt((z**2).mean(axis=1)), 1)[:, None]
    return z


def _correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Correlations `(K, K')` of standardised codes `(N, K)` and `(N, K')`."""
    return x.T @ y / len(x)


def _regress(x: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """Lasso coefficients `(K, K')` of codes `(N, K)` in predicting each code of `(N, K')`."""
    gram, cross = _correlate(x, x), _correlate(x, y)
    found = np.zeros_like(cross)
    for k in range(found.shape[1] if len(found) else 0):
        found[:, k] = _lasso(gram, cross[:, k], alpha)
    return found


def _lasso(gram: np.ndarray, cross: np.ndarray, alpha: float) -> np.ndarray:
    """Minimises `½ E (y − x·w)² + α |w|₁` exactly, for standardised features and target.

    By the search for the signs of `w` of Lee et al., Efficient Sparse Coding Algorithms, NeurIPS
    2006: coordinate descent takes 10,000s of sweeps where codes are nearly collinear.

    Args:
        gram: Correlations of the `K` features, shape `(K, K)`.
        cross: Correlations of features and target, shape `(K,)`.
        alpha: Weight of the penalty.

    Returns:
        Coefficients of shape `(K,)`.
    """
    w = np.zeros_like(cross)
    for _ in range(MAX_STEPS * len(w)):
        (used,) = np.nonzero(w)
        # rows in place of columns, as the matrix is symmetric: few of many features are used
        slopes = np.where(w == 0, cross - w[used] @ gram[used], 0)
        steepest = np.abs(slopes).argmax()
        if np.abs(slopes[steepest]) <= alpha * (1 + 1e-9):
            return w
        signs = np.sign(w)
        signs[steepest] = np.sign(slopes[steepest])
        w = _minimise_with_signs(gram, cross, alpha, w, signs)
    raise RuntimeError(f"the Lasso did not converge in {MAX_STEPS * len(w)} steps")


def _minimise_with_signs(
    gram: np.ndarray, cross: np.ndarray, alpha: float, w: np.ndarray, signs: np.ndarray
) -> np.ndarray:
    """Goes downhill from `w` where the signs are these or 0, until those left are right."""
    while True:
        (used,) = np.nonzero(signs)
        minimum = np.zeros_like(w)
        block = gram[used[:, None], used]
        # the diagonal makes the minimum of dependent features finite, if far off
        block.flat[:: len(used) + 1] += 1e-14
        minimum[used] = np.linalg.solve(block, cross[used] - alpha * signs[used])
        wrong = (w != 0) & (np.sign(minimum) != signs)
        if not wrong.any():
            return minimum
        crossings = np.where(wrong, w / np.where(wrong, w - minimum, 1), 1)
        w = w + crossings.min() * (minimum - w)
        w[crossings.argmin()] = 0
        signs = np.sign(w)


def _compare(similarity: np.ndarray) -> float:
    """Closeness of a matrix `(K, K')` to one large entry per row and column."""
    if similarity.size == 0:
        return 0.0
    return (_peak(similarity) + _peak(similarity.T)) / 2


def _peak(similarity: np.ndarray) -> float:
    """Mean of `max² / Σ` over the columns, where a column without similarity counts as 0."""
    total = similarity.sum(axis=0)
    squares = similarity.max(axis=0) ** 2
    return float(np.divide(squares, total, out=np.zeros_like(total), where=total > 0).mean())
