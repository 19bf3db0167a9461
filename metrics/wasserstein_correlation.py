"""Gaussian Wasserstein correlation.

From disentanglement_lib, Locatello et al., Challenging Common Assumptions in the Unsupervised
Learning of Disentangled Representations, ICML 2019, https://arxiv.org/abs/1811.12359;
the distance is that of Dowson and Landau, Journal of Multivariate Analysis 12(3), 1982,
https://doi.org/10.1016/0047-259X(82)90077-X.
"""

from dataclasses import dataclass

import numpy as np

from disentangle.metrics.inputs import Array, as_codes, check_at_least
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class WassersteinCorrelationResult(Result):
    """Result of `wasserstein_correlation`.

    Attributes:
        score: The squared distance, in squared units of the codes.
        normalised: The score over the total variance of the codes; 0 without variance.
        covariance: Covariance of the codes, unbiased, shape `(K, K)`.
    """

    score: float
    normalised: float
    covariance: np.ndarray


def wasserstein_correlation(codes: Array) -> WassersteinCorrelationResult:
    """Wasserstein distance of the Gaussian of the codes from that of uncorrelated ones.

    Locatello et al. 2019, https://arxiv.org/abs/1811.12359: the *squared* 2-Wasserstein distance
    between the Gaussian with the codes' covariance `Σ` and the product of its marginals, whose
    covariance is the diagonal `D` of `Σ`: `2 tr Σ − 2 tr (D^½ Σ D^½)^½`.

    Range: 0 for uncorrelated codes, to `2 (1 − 1/√K) tr Σ` for `K` equal codes; `normalised` is the
    score over `tr Σ`, and does not depend on a common scale of the codes.

    Blind to ground truth: it needs no factors, and codes that are constant or noise get 0. Blind to
    dependence without correlation, and nearly so to codes with little variance.

    Protocol: disentanglement_lib's, 10,000 points; its `gaussian_wasserstein_correlation` is
    `score`, its `gaussian_wasserstein_correlation_norm` is `normalised` (NaN there if all codes are
    constant).

    Args:
        codes: Shape `(N, K)`, real, `N ≥ 2`.

    Raises:
        ValueError: If the codes are not finite, have another shape, or are too few.

    Examples:
        >>> noise = np.random.default_rng(0).normal(size=(10_000, 2))
        >>> round(wasserstein_correlation(noise).normalised, 2)
        0.0
        >>> round(wasserstein_correlation(noise[:, [0, 0]]).normalised, 4)  # 2 − √2
        0.5858
    """
    codes = as_codes(codes).astype(np.float64)
    check_at_least(2, **{"the number of points": len(codes)})
    # from the least value, so that the variance of a constant code is 0 and not rounding
    covariance = np.atleast_2d(np.cov(codes - codes.min(axis=0), rowvar=False))
    deviations = np.sqrt(np.diag(covariance))
    eigenvalues = np.linalg.eigvalsh(covariance * np.outer(deviations, deviations))
    total = float(np.trace(covariance))
    # rounding makes the zero eigenvalues of dependent codes slightly negative
    score = max(0.0, float(2 * total - 2 * np.sqrt(eigenvalues.clip(min=0)).sum()))
    return WassersteinCorrelationResult(
        score=score,
        normalised=score / total if total > 0 else 0.0,
        covariance=covariance,
    )
