"""Interventional robustness score (IRS).

Suter, Miladinović, Schölkopf and Bauer, Robustly Disentangled Causal Mechanisms, ICML 2019,
https://arxiv.org/abs/1811.00007; in the protocol of disentanglement_lib, Locatello et al., ICML
2019, https://arxiv.org/abs/1811.12359.
"""

from dataclasses import dataclass

import numpy as np

from disentangle.metrics.information import count_values, discretize
from disentangle.metrics.inputs import (
    Array,
    as_codes_and_factors,
    as_floating,
    check_at_least,
    find_varying,
)
from disentangle.metrics.results import Result


@dataclass(frozen=True, eq=False)
class IrsResult(Result):
    """Result of `irs`.

    Attributes:
        score: Mean of `per_code`, weighted by `max_deviations`; 0 without an active code.
        per_code: The largest robustness of each code, shape `(K,)`; NaN for a constant code.
        robustness: Robustness of code and factor, shape `(K, F)`; NaN for a constant code and for a
            factor with one value.
        parents: The factor with the largest robustness of each code, shape `(K,)`; −1 for a
            constant code.
        max_deviations: Largest distance of each code from its mean, shape `(K,)`.
        active_codes: Which codes are not constant, shape `(K,)`.
        excluded_factors: The indices of the factors with one value.
    """

    undefined = frozenset({"per_code", "robustness"})

    score: float
    per_code: np.ndarray
    robustness: np.ndarray
    parents: np.ndarray
    max_deviations: np.ndarray
    active_codes: np.ndarray
    excluded_factors: tuple[int, ...]


def irs(
    codes: Array, factors: Array, *, quantile: float = 0.99, bins: int | None = 20
) -> IrsResult:
    """Interventional robustness: how little a code changes when all factors but one change.

    Suter et al. 2019, https://arxiv.org/abs/1811.00007: the robustness of a code with respect to a
    factor is `1 − E[d] / d_max`. `d` is the largest distance of the code from its mean while the
    factor holds one value, expected over the values, and `d_max` the largest distance from the mean
    of all points. A code has the robustness of its best factor; codes are averaged with weight
    `d_max`.

    Range: 0 to 1, where the quantile and the maximum over factors leave noise above 0: independent
    normal codes get about 0.36. Perfect codes get 1 as long as no two values share a bin, and about
    0.99 with dSprites' five factors.

    Blind to several codes for one factor and to factors that no code tells about; codes that are
    spread out wide, or have outliers, weigh most. It takes the factors for independent of each
    other and for the only cause of the codes: noise counts as sensitivity.

    Protocol: disentanglement_lib's, number for number: 10,000 points, the 0.99 quantile of the
    distances in place of their largest (`quantile=1` is the paper's), factors discretised in 20
    bins of equal width, so that values of a factor with more of them are merged (`bins=None` takes
    each value for itself). Constant codes are left out. That library's `num_active_dims` sums up
    the codes' values; here `active_codes` names the active ones.

    Args:
        codes: Shape `(N, K)`, real.
        factors: Shape `(N, F)`, integers.
        quantile: Quantile of the distances with one value held fixed, in (0, 1].
        bins: Histogram bins per factor, at least 2, or None.

    Raises:
        ValueError: If the arguments do not fit together, a code is not finite, an argument is out
            of its range, no factor has two values, or one to discretise is beyond 2^53 in size.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, [3, 6, 8], size=(10_000, 3))
        >>> irs(factors, factors).score
        1.0
        >>> round(irs(factors @ [[1, 1], [1, -1], [0, 0]], factors).score, 1)
        0.7
        >>> irs(np.zeros((10_000, 4)), factors).score
        0.0
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile must be in (0, 1], got {quantile}")
    if bins is not None:
        check_at_least(2, bins=bins)
    codes, factors = as_codes_and_factors(codes, factors, minimum=2)
    varying = find_varying(count_values(factors))
    groups = factors if bins is None else discretize(as_floating("factors", factors), bins)
    # from the extremes: the variance of a constant code may be rounding, not 0
    active = codes.min(axis=0) < codes.max(axis=0)
    robustness = np.full((len(active), len(varying)), np.nan)
    max_deviations, per_code = np.zeros(len(active)), np.full(len(active), np.nan)
    parents = np.full(len(active), -1)
    if active.any():
        x = codes[:, active].astype(np.float64)
        max_deviations[active] = np.abs(x - x.mean(axis=0)).max(axis=0)
        expected = [_expected_deviation(x, group, quantile) for group in groups[:, varying].T]
        relative = np.stack(expected, axis=1) / max_deviations[active, None]
        robust = 1 - relative  # (active codes, varying factors)
        robustness[np.ix_(active, varying)] = robust
        per_code[active] = robust.max(axis=1)
        parents[active] = np.flatnonzero(varying)[robust.argmax(axis=1)]
    score = np.average(per_code[active], weights=max_deviations[active]) if active.any() else 0.0
    return IrsResult(
        score=float(score),
        per_code=per_code,
        robustness=robustness,
        parents=parents,
        max_deviations=max_deviations,
        active_codes=active,
        excluded_factors=tuple(np.flatnonzero(~varying).tolist()),
    )


def _expected_deviation(codes: np.ndarray, factor: np.ndarray, quantile: float) -> np.ndarray:
    """Mean over values `(K,)` of the quantile of the distances to the mean given the value."""
    order = np.argsort(factor, kind="stable")
    starts = np.flatnonzero(np.diff(factor[order])) + 1
    quantiles = [
        np.quantile(np.abs(group - group.mean(axis=0)), quantile, axis=0)
        for group in np.split(codes[order], starts)
    ]
    return np.mean(quantiles, axis=0)
