import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disentangle.metrics.gaussian_total_correlation import gaussian_total_correlation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def divergence(covariance):
    """Of the Gaussian from the product of its marginals, from the definition with inverses."""
    marginals = np.diag(np.diag(covariance))
    ratio = np.linalg.det(marginals) / np.linalg.det(covariance)
    trace = np.trace(np.linalg.inv(marginals) @ covariance)
    return 0.5 * (trace - len(covariance) + np.log(ratio))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_divergence_from_the_marginals(rng, dtype):
    codes = (rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 5).astype(dtype)
    result = gaussian_total_correlation(codes)
    expected = divergence(np.cov(codes.astype(np.float64), rowvar=False))
    assert result.score == pytest.approx(expected, rel=1e-9)
    expected = np.corrcoef(codes.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(result.correlations, expected, atol=1e-12)


@given(correlation=st.floats(-0.999, 0.999))
@settings(derandomize=True, deadline=None)
def test_two_codes_with_a_known_correlation(correlation):
    x, y = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]).T  # exactly uncorrelated
    codes = np.stack([x, correlation * x + np.sqrt(1 - correlation**2) * y], axis=1)
    score = gaussian_total_correlation(codes).score
    assert score == pytest.approx(-0.5 * np.log(1 - correlation**2), rel=1e-9, abs=1e-12)


def test_independent_codes_get_nearly_zero(rng):
    codes = rng.normal(size=(10_000, 10))
    assert 0 <= gaussian_total_correlation(codes).score < 2 * 10 * 9 / (4 * 10_000)


def test_constant_codes_are_left_out(rng):
    codes = rng.normal(size=(100, 3)) @ rng.normal(size=(3, 3))
    constants = np.full((100, 1), 0.1)  # whose variance is rounding, not 0
    result = gaussian_total_correlation(np.hstack([codes[:, :1], constants, codes[:, 1:]]))
    expected = gaussian_total_correlation(codes).score
    assert result.score == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(result.active_codes, [True, False, True, True])
    np.testing.assert_array_equal(result.correlations[1], [0, 1, 0, 0])
    assert gaussian_total_correlation(np.zeros((100, 3))).score == 0
    assert gaussian_total_correlation(np.hstack([constants, codes[:, :1]])).score == 0


def test_dependent_codes_get_infinity(rng):
    codes = rng.normal(size=(100, 3))
    total = codes.sum(axis=1, keepdims=True)
    for dependent in (np.hstack([codes, -2 * codes[:, :1]]), np.hstack([codes, total])):
        assert gaussian_total_correlation(dependent).score == np.inf


def test_one_code_gets_zero(rng):
    assert gaussian_total_correlation(rng.normal(size=(100, 1))).score == 0


def test_order_sign_and_scale_do_not_matter(rng):
    codes = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4))
    score = gaussian_total_correlation(codes).score
    moved = codes[rng.permutation(200)][:, ::-1] * [-1, 1e3, -1e-3, 1] + 7
    assert gaussian_total_correlation(moved).score == pytest.approx(score, rel=1e-9)


def test_tensors_give_what_arrays_give(rng):
    codes = rng.normal(size=(50, 3)).astype(np.float32)
    ours = gaussian_total_correlation(torch.from_numpy(codes).requires_grad_()).score
    assert ours == gaussian_total_correlation(codes).score


GOOD = np.random.default_rng(1).normal(size=(100, 3))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (GOOD[:, 0], r"shape \(N, K\) with K ≥ 1, got \(100,\)"),
        (GOOD[:3], "more points than codes, .*, got 3 points of 3 codes: score more"),
        (np.where(GOOD > 2, np.nan, GOOD), "codes must be finite"),
        (GOOD.astype(complex), "codes must be real numbers, got complex128"),
    ],
)
def test_bad_input_is_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        gaussian_total_correlation(codes)


@pytest.mark.parametrize("scale", [1e155, 1e-170])
def test_codes_whose_squares_are_no_numbers_are_refused(scale):
    codes = np.random.default_rng(0).normal(size=(50, 2))
    with pytest.raises(ValueError, match=r"codes must be at most 1e\+75 in size and vary by 1e-75"):
        gaussian_total_correlation(scale * codes)
    assert gaussian_total_correlation(1e70 * codes).score == pytest.approx(
        gaussian_total_correlation(codes).score
    )
