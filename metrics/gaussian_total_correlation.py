"""Gaussian total correlation.

Watanabe, Information Theoretical Analysis of Multivariate Correlation, IBM Journal of Research and
Development 4(1), 1960, https://doi.org/10.1147/rd.41.0066; for Gaussian codes as in
disentanglement_lib, Locatello et al., ICML 2019, https://arxiv.org/abs/1811.12359.
"""

from dataclasses import dataclass

import numpy as np

from disentangle.metrics.inputs import Array, as_codes
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class GaussianTotalCorrelationResult(Result):
    """Result of `gaussian_total_correlation`.

    Attributes:
        score: In nats.
        correlations: Correlations of the codes, shape `(K, K)`; 0 beside a constant code, 1 on the
            diagonal.
        active_codes: Which codes are not constant, shape `(K,)`.
    """

    score: float
    correlations: np.ndarray
    active_codes: np.ndarray


def gaussian_total_correlation(codes: Array) -> GaussianTotalCorrelationResult:
    """Total correlation of the Gaussian that has the covariance of the codes.

    Watanabe 1960, https://doi.org/10.1147/rd.41.0066: the Kullback–Leibler divergence of a joint
    distribution from the product of its marginals. For a Gaussian with covariance `Σ` it is `½ (Σᵢ
    log Σᵢᵢ − log det Σ)`, which is `−½ log det R` of the correlation matrix `R`.

    Range: 0 to infinity. Uncorrelated codes get 0, up to about `K (K − 1) / 4N` from `N` points; it
    is infinite where a code is a linear function of others.

    Blind to ground truth: it needs no factors, and codes that are constant or noise get 0. Blind to
    dependence without correlation. Low values do not mean disentangled codes, and the codes that
    are usually scored, means of a posterior, can be correlated where samples are not.

    Protocol: disentanglement_lib's, 10,000 points. A constant code depends on no other and is left
    out (that library gets NaN). Covariances that are singular to rounding give infinity (there
    rounding decides between infinity and numbers about 20).

    Args:
        codes: Shape `(N, K)`, real, with `N > K`: the covariance of fewer points is singular.

    Raises:
        ValueError: If the codes are not finite, have another shape, or are too few.

    Examples:
        >>> noise = np.random.default_rng(0).normal(size=(10_000, 3))
        >>> round(gaussian_total_correlation(noise).score, 2)
        0.0
        >>> gaussian_total_correlation(noise[:, [0, 1, 0]]).score
        inf
    """
    codes = as_codes(codes).astype(np.float64)
    if len(codes) <= codes.shape[1]:
        raise ValueError(
            f"there must be more points than codes, whose covariance is singular otherwise, got "
            f"{len(codes)} points of {codes.shape[1]} codes: score more points or fewer codes"
        )
    active = codes.min(axis=0) < codes.max(axis=0)
    correlations = np.eye(len(active))
    correlations[np.ix_(active, active)] = np.corrcoef(codes[:, active], rowvar=False)
    eigenvalues = np.linalg.eigvalsh(correlations)
    singular = eigenvalues[0] <= len(active) * np.finfo(np.float64).eps * eigenvalues[-1]
    return GaussianTotalCorrelationResult(
        score=np.inf if singular else max(0.0, float(-0.5 * np.log(eigenvalues).sum())),
        correlations=correlations,
        active_codes=active,
    )
