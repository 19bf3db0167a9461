"""Modularity.

Ridgeway and Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, NeurIPS 2018,
https://arxiv.org/abs/1802.05312, section 3; in the protocol of disentanglement_lib, Locatello et
al., ICML 2019, https://arxiv.org/abs/1811.12359.
"""

from dataclasses import dataclass

import numpy as np

from disentangle.metrics.information import count_values, discretize, mutual_information
from disentangle.metrics.inputs import Array, as_codes_and_factors, check_at_least, find_varying
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class ModularityResult(Result):
    """Result of `modularity`.

    Attributes:
        score: Mean over the codes.
        per_code: Shape `(K,)`; 0 for a code without information about any factor.
        mutual_information: In nats, of code and factor, shape `(K, F)`.
        excluded_factors: The indices of the factors with one value.
    """

    score: float
    per_code: np.ndarray
    mutual_information: np.ndarray
    excluded_factors: tuple[int, ...]


def modularity(codes: Array, factors: Array, *, bins: int = 20) -> ModularityResult:
    """Modularity: the degree to which each code carries information about one factor only.

    Ridgeway and Mozer 2018, https://arxiv.org/abs/1802.05312: the mean over codes of
    `1 − Σ_f I_f² / (I_max² (F − 1))`, where the sum runs over the `F` factors but the one with the
    largest mutual information, `I_max`.

    Range: 0 to 1; codes with equal information about all factors get 0. Only ratios count, so that
    noise does not get 0: the bias of the estimates, which grows with a factor's number of values,
    gives codes of pure noise 0.6 to 0.7 with dSprites' five factors.

    Blind to how much a code tells, to several codes for one factor, and to factors that no code
    tells about. Compare it together with explicitness.

    Protocol: disentanglement_lib's, number for number: 10,000 points, each code discretised in 20
    bins of equal width between its extremes, plug-in estimates. A code without any information,
    such as a constant one, is 0/0: as there it counts as 0 in the mean, whereas a code of noise
    counts as above. A factor with one value does not count in `F` (there it does).

    Args:
        codes: Shape `(N, K)`, real.
        factors: Shape `(N, F)`, integers.
        bins: Histogram bins per code, at least 2.

    Raises:
        ValueError: If the arguments do not fit together, a code is not finite, there are fewer
            points than bins, or fewer than two factors have two values.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, [3, 6, 4], size=(10_000, 3))
        >>> round(modularity(factors, factors).score, 2)
        1.0
        >>> modularity(np.zeros((10_000, 4)), factors).score
        0.0
        >>> dsprites = rng.integers(0, [3, 6, 40, 32, 32], size=(10_000, 5))
        >>> round(modularity(rng.normal(size=(10_000, 10)), dsprites).score, 1)  # pure noise
        0.7
    """
    check_at_least(2, bins=bins)
    codes, factors = as_codes_and_factors(codes, factors, minimum=bins)
    varying = find_varying(count_values(factors), minimum=2)
    information = mutual_information(discretize(codes, bins), factors)
    squares = np.square(information)  # zero for a factor with one value
    largest = squares.max(axis=1)
    rest = (squares.sum(axis=1) - largest) / (varying.sum() - 1)
    per_code = np.zeros(len(largest))
    np.divide(largest - rest, largest, out=per_code, where=largest > 0)
    return ModularityResult(
        score=float(per_code.mean()),
        per_code=per_code,
        mutual_information=information,
        excluded_factors=tuple(np.flatnonzero(~varying).tolist()),
    )
