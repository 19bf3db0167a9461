"""Mutual-information score of codes.

From disentanglement_lib, Locatello et al., Challenging Common Assumptions in the Unsupervised
Learning of Disentangled Representations, ICML 2019, https://arxiv.org/abs/1811.12359.
"""

from dataclasses import dataclass

import numpy as np

from disentangle.metrics.information import discretize, mutual_information_of_pairs
from disentangle.metrics.inputs import Array, as_codes, check_at_least
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class MutualInformationScoreResult(Result):
    """Result of `mutual_information_score`.

    Attributes:
        score: Mean over the pairs of different codes, in nats.
        mutual_information: Mutual information of every pair of codes, in nats, shape `(K, K)`; a
            code's entropy on the diagonal.
    """

    score: float
    mutual_information: np.ndarray


def mutual_information_score(codes: Array, *, bins: int = 20) -> MutualInformationScoreResult:
    """Mean mutual information of pairs of codes.

    Locatello et al. 2019, https://arxiv.org/abs/1811.12359: the mean mutual information of two
    different codes.

    Range: 0 to `log bins`, 3.0 for 20 bins. Independent codes do not reach 0 but the bias of the
    estimate, up to about `(bins − 1)² / 2N`: 0.018 for 20 bins and 10,000 points.

    Blind to ground truth: it needs no factors, and constant codes get 0. Blind to dependence that
    shows in three codes together but in no two. An equal-width histogram is thrown off by outliers.

    Protocol: disentanglement_lib's, number for number: 10,000 points, each code discretised in 20
    bins of equal width between its extremes, natural logarithms, plug-in estimates. One code has no
    other to share with and gets 0 (that library gets NaN).

    Args:
        codes: Shape `(N, K)`, real.
        bins: Histogram bins per code, at least 2.

    Raises:
        ValueError: If the codes are not finite, have another shape, or are fewer than bins.

    Examples:
        >>> noise = np.random.default_rng(0).uniform(size=(10_000, 3))
        >>> round(mutual_information_score(noise).score, 3)
        0.019
        >>> round(mutual_information_score(noise[:, [0, 0]]).score, 3)
        2.994
    """
    check_at_least(2, bins=bins)
    codes = as_codes(codes)
    check_at_least(bins, **{"the number of points": len(codes)})
    information = mutual_information_of_pairs(discretize(codes, bins))
    pairs = len(information) * (len(information) - 1)
    shared = information.sum() - np.trace(information)
    return MutualInformationScoreResult(
        score=float(shared / pairs) if pairs else 0.0,
        mutual_information=information,
    )
