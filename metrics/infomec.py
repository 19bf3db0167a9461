"""InfoMEC: InfoM (modularity), InfoE (explicitness) and InfoC (compactness).

Hsu, Dorrell, Whittington, Wu and Finn, Disentanglement via Latent Quantization, NeurIPS 2023,
https://arxiv.org/abs/2305.18378; in the protocol of the authors' `metrics/infomec.py`,
https://github.com/kylehkhsu/latent_quantization.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from disentangle.metrics.information import count_values, entropy, mutual_information
from disentangle.metrics.inputs import Array, as_codes_and_factors, check_at_least, find_varying
from disentangle.metrics.knn_information import knn_information
from disentangle.metrics.results import Result

MAX_ITERATIONS = 100  # of L-BFGS: part of the protocol, as the regressions often end there


@dataclass(frozen=True, eq=False)
class InfoMecResult(Result):
    """Result of `infomec`.

    Attributes:
        score: InfoM, modularity: how far each active code keeps to one factor.
        infoe: Explicitness: how much of the factors' information is linear in the codes.
        infoc: Compactness: how far each factor keeps to one active code.
        normalised_information: Mutual information of code and factor over the factor's entropy,
            shape `(K, F)`; NaN for a factor with one value.
        active_codes: True for the codes that InfoM and InfoC count, shape `(K,)`.
        infoe_per_factor: Shape `(F,)`; NaN for a factor with one value.
        converged: Whether the factor's logistic regression converged, shape `(F,)`.
        excluded_factors: The indices of the factors with one value.
    """

    undefined = frozenset({"normalised_information", "infoe_per_factor"})

    score: float
    infoe: float
    infoc: float
    normalised_information: np.ndarray
    active_codes: np.ndarray
    infoe_per_factor: np.ndarray
    converged: np.ndarray
    excluded_factors: tuple[int, ...]


def infomec(
    codes: Array,
    factors: Array,
    *,
    discrete_codes: bool = False,
    neighbours: int = 10,
    prune_below: float = 0.05,
    seed: int = 0,
    workers: int | None = None,
) -> InfoMecResult:
    """Modularity, explicitness and compactness from one kind of quantity, information.

    Hsu et al. 2023, https://arxiv.org/abs/2305.18378. With the mutual information of a code and a
    factor over the factor's entropy, and the `K'` active codes of `K` and `F` factors: InfoM is the
    mean over active codes of the largest entry over the sum of entries, scaled from `[1/F, 1]` to
    `[0, 1]`; InfoC is the same over factors, scaled from `[1/K', 1]`. InfoE is the mean over
    factors of `1 − ℓ / ℓ₀`, with the log-loss `ℓ` of a multinomial logistic regression of the
    factor on all codes and the log-loss `ℓ₀` of one on a constant.

    Range: 0 to 1 each; perfect codes get 1. A code of pure noise does not get 0 but a random
    number: its entries are the errors of the estimate, many of them 0, of which one may be most of
    the sum. Ten noise codes and dSprites' factors have InfoM 0.7 and InfoC 0.4 at 10,000 points,
    and noise codes that vary as much as others are not pruned. InfoE can be a little below 0 where
    values are unequally frequent: balanced classes are fitted, all points are scored.

    Blind to the amount of information: a code that barely knows one factor is as modular as one
    that knows it all; look at InfoE and the matrix. InfoE sees what is linear in the codes and is
    measured on the points that it was fitted to. What counts as active depends on the codes' scale.

    Protocol: the authors': 10,000 points; standardised codes; k-nearest-neighbour estimates with
    k = 10 (`mutual_info_classif`); codes whose range is at most 1/20 of the largest are inactive
    for InfoM and InfoC, not for InfoE; logistic regression without penalty, with balanced classes,
    at most 100 iterations, scored on its training points. `ℓ₀` is known: balanced classes and no
    information give `log V` for `V` values. With `discrete_codes`: plug-in estimates, constant
    codes are inactive, one-hot inputs. Where their code divides by zero: an active code that tells
    nothing about any factor, and a factor that no active code tells anything about, are left out
    of the means; with nothing left the score is 0; one factor has InfoM 1 and one active code
    InfoC 1.

    Args:
        codes: Shape `(N, K)`, real.
        factors: Shape `(N, F)`, integers.
        discrete_codes: Every value of a code is a symbol of its own.
        neighbours: Neighbours of the estimate for continuous codes.
        prune_below: Share of the largest range, under which a continuous code is inactive.
        seed: Seed for the noise of 1e-10 that separates equal codes.
        workers: Threads for the regressions; one per core by default.

    Raises:
        ValueError: If the arguments do not fit together, a code is not finite, there are not more
            points than neighbours, no factor has two values, or no two points share a value of a
            factor.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> factors = rng.integers(0, [2, 3], size=(1_000, 2))
        >>> result = infomec(factors, factors)
        >>> round(result.score, 1), round(result.infoc, 1), round(result.infoe, 1)
        (1.0, 1.0, 1.0)
        >>> round(infomec(factors @ [[1, 1], [1, -1]], factors, discrete_codes=True).score, 1)
        0.3
    """
    check_at_least(1, neighbours=neighbours)
    if not 0 <= prune_below < 1:
        raise ValueError(f"prune_below must be in [0, 1), got {prune_below}")
    codes, factors = as_codes_and_factors(codes, factors, minimum=neighbours + 1)
    varying = find_varying(count_values(factors))
    _check_shared(factors[:, varying], varying)
    information = np.full((codes.shape[1], len(varying)), np.nan)
    if discrete_codes:
        symbols = np.stack([np.unique(x, return_inverse=True)[1] for x in codes.T], axis=1)
        estimates = mutual_information(symbols, factors[:, varying])
        active = np.ptp(codes, axis=0) > 0
        inputs = OneHotEncoder().fit_transform(symbols)
    else:
        estimates = knn_information(codes, factors[:, varying], neighbours=neighbours, seed=seed)
        ranges = np.ptp(codes, axis=0)
        active = ranges > prune_below * ranges.max()
        inputs = StandardScaler().fit_transform(codes.astype(np.float64))
    information[:, varying] = estimates / entropy(factors[:, varying])
    infoe, converged = np.full(len(varying), np.nan), np.zeros(len(varying), dtype=bool)
    infoe[varying], converged[varying] = _linear_information(inputs, factors[:, varying], workers)
    used = information[np.ix_(active, varying)]
    return InfoMecResult(
        score=_concentration(used),
        infoe=float(infoe[varying].mean()),
        infoc=_concentration(used.T),
        normalised_information=information,
        active_codes=active,
        infoe_per_factor=infoe,
        converged=converged,
        excluded_factors=tuple(np.flatnonzero(~varying).tolist()),
    )


def _concentration(information: np.ndarray) -> float:
    """Mean over rows of the largest entry's share, scaled so that equal entries give 0."""
    rows = information[information.sum(axis=1) > 0]
    columns = information.shape[1]
    if len(rows) == 0 or columns == 1:
        return float(len(rows) > 0)
    share = (rows.max(axis=1) / rows.sum(axis=1)).mean()
    return float((share - 1 / columns) / (1 - 1 / columns))


def _linear_information(
    inputs: np.ndarray | csr_array, factors: np.ndarray, workers: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """InfoE of every factor `(N, F)`, and whether its regression converged."""
    # those with many values take longest: first, so that no thread is left with one at the end
    order = np.argsort(-count_values(factors), kind="stable")
    pool = Parallel(n_jobs=-1 if workers is None else workers, prefer="threads")
    # products this small are slower on several threads
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported in the result instead
        found = pool(delayed(_explain)(inputs, factors[:, f]) for f in order)
    gains, converged = np.empty(len(order)), np.empty(len(order), dtype=bool)
    gains[order], converged[order] = zip(*found, strict=True)
    return gains, converged


def _explain(inputs: np.ndarray | csr_array, labels: np.ndarray) -> tuple[float, bool]:
    # C = ∞ is no penalty in every version of scikit-learn; penalty=None is deprecated
    model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=MAX_ITERATIONS)
    loss = log_loss(labels, model.fit(inputs, labels).predict_proba(inputs))
    return 1 - loss / np.log(len(model.classes_)), bool(model.n_iter_.max() < MAX_ITERATIONS)


def _check_shared(factors: np.ndarray, varying: np.ndarray) -> None:
    distinct = count_values(factors)
    alone = np.flatnonzero(varying)[distinct == len(factors)]
    if len(alone):
        raise ValueError(
            f"two points must share a value of each factor, got {len(factors)} different values "
            f"of factor {alone[0]}"
        )
