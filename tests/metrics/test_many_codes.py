"""Time of the metrics for many codes of few points."""

import time

import numpy as np
import pytest

from disentangle.metrics import (
    beta_vae_score,
    dci,
    explicitness,
    factor_vae_score,
    gaussian_total_correlation,
    histogram_dci,
    infomec,
    irs,
    mig,
    modularity,
    mutual_information_score,
    sap,
    udr,
    wasserstein_correlation,
)

POINTS, CODES, SIZES = 60, 400, [2, 3]
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(len(SIZES), CODES))
FACTORS = RNG.integers(0, SIZES, size=(2 * POINTS, len(SIZES)))
X = FACTORS @ WEIGHTS + RNG.normal(size=(2 * POINTS, CODES))
SPLIT = X[:POINTS], FACTORS[:POINTS], X[POINTS:], FACTORS[POINTS:]
TRAIN = SPLIT[:2]
SHORT = {"train_points": 100, "test_points": 50}


@pytest.mark.parametrize(
    ("metric", "arguments", "options"),
    [
        (mig, TRAIN, {}),
        (sap, SPLIT, {}),
        (sap, TRAIN, {"continuous_factors": True}),
        (modularity, TRAIN, {}),
        (explicitness, SPLIT, {}),
        (irs, TRAIN, {}),
        (infomec, TRAIN, {}),
        (infomec, (np.rint(TRAIN[0]), TRAIN[1]), {"discrete_codes": True}),
        (histogram_dci, SPLIT, {}),
        (dci, SPLIT, {}),
        (wasserstein_correlation, TRAIN[:1], {}),
        (mutual_information_score, TRAIN[:1], {}),
        (udr, ([TRAIN[0], SPLIT[2]],), {}),
        (udr, ([TRAIN[0], SPLIT[2]],), {"method": "spearman"}),
        (factor_vae_score, (lambda f: f @ WEIGHTS, SIZES), SHORT),
        (beta_vae_score, (lambda f: f @ WEIGHTS, SIZES), SHORT),
    ],
)
def test_hundreds_of_codes_take_seconds(metric, arguments, options):
    start = time.process_time()
    assert np.isfinite(metric(*arguments, **options).score)
    assert time.process_time() - start < 10


def test_a_singular_covariance_is_refused():
    with pytest.raises(ValueError, match="got 60 points of 400 codes: score more points or fewer"):
        gaussian_total_correlation(X[:POINTS])
