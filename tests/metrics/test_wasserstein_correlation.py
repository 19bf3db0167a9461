import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from disentangle.metrics.wasserstein_correlation import wasserstein_correlation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_published_protocol(rng, dtype):
    codes = (rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 5).astype(dtype)
    covariance = np.cov(codes.astype(np.float64), rowvar=False)
    root = sqrtm(covariance * np.diag(covariance)[:, None])  # of a matrix that is not symmetric
    expected = 2 * np.trace(covariance) - 2 * np.trace(root).real
    result = wasserstein_correlation(codes)
    assert result.score == pytest.approx(expected, rel=1e-9)
    assert result.normalised == pytest.approx(expected / np.trace(covariance), rel=1e-9)
    np.testing.assert_allclose(result.covariance, covariance, rtol=1e-9)


def distance(first, second):
    """Squared 2-Wasserstein distance of two centred Gaussians, as it is usually written."""
    root = sqrtm(first)
    return np.trace(first + second - 2 * sqrtm(root @ second @ root)).real


def test_is_the_distance_to_the_marginals(rng):
    codes = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 3))
    covariance = np.cov(codes, rowvar=False)
    expected = distance(covariance, np.diag(np.diag(covariance)))
    assert wasserstein_correlation(codes).score == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_equal_codes_get_the_largest_value(rng, count):
    codes = np.repeat(rng.normal(size=(200, 1)), count, axis=1)
    assert wasserstein_correlation(codes).normalised == pytest.approx(2 - 2 / np.sqrt(count))


@given(seed=st.integers(0, 1_000), count=st.integers(1, 6), rank=st.integers(1, 6))
@settings(derandomize=True, deadline=None)
def test_no_codes_exceed_it(seed, count, rank):
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(30, rank)) @ rng.normal(size=(rank, count)) * rng.uniform(size=count)
    result = wasserstein_correlation(codes)
    assert 0 <= result.normalised <= 2 - 2 / np.sqrt(count) + 1e-9


def test_uncorrelated_and_constant_codes_get_zero(rng):
    square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * [3.0, 0.1]
    assert wasserstein_correlation(square).score == pytest.approx(0, abs=1e-14)
    constant = np.full((4, 3), 0.1)
    assert (
        wasserstein_correlation(constant).score,
        wasserstein_correlation(constant).normalised,
    ) == (0, 0)
    both = wasserstein_correlation(np.hstack([square, constant]))
    assert both.score == pytest.approx(0, abs=1e-14)
    assert wasserstein_correlation(rng.normal(size=(10_000, 10))).normalised < 0.005


def test_one_code_gets_zero(rng):
    assert wasserstein_correlation(rng.normal(size=(100, 1))).score == pytest.approx(0, abs=1e-12)


def test_order_and_sign_do_not_matter_and_scale_is_squared(rng):
    codes = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))
    result = wasserstein_correlation(codes)
    moved = wasserstein_correlation(codes[rng.permutation(200)][:, ::-1] * [-1, 1, -1, 1] + 7)
    assert moved.score == pytest.approx(result.score, rel=1e-9)
    scaled = wasserstein_correlation(3 * codes)
    assert scaled.score == pytest.approx(9 * result.score, rel=1e-9)
    assert scaled.normalised == pytest.approx(result.normalised, rel=1e-9)


def test_tensors_give_what_arrays_give(rng):
    codes = rng.normal(size=(50, 3)).astype(np.float32)
    ours = wasserstein_correlation(torch.from_numpy(codes).requires_grad_()).score
    assert ours == wasserstein_correlation(codes).score


GOOD = np.random.default_rng(1).normal(size=(100, 3))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (GOOD[:, 0], r"shape \(N, K\) with K ≥ 1, got \(100,\)"),
        (GOOD[:1], "the number of points must be at least 2, got 1"),
        (np.where(GOOD > 2, np.nan, GOOD), "codes must be finite"),
    ],
)
def test_bad_input_is_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        wasserstein_correlation(codes)
