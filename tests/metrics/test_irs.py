import numpy as np
import pytest
import torch

from disentangle.metrics.irs import irs

DSPRITES = [3, 6, 40, 32, 32]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def reference_robustness(codes, factors, quantile, bins):
    """The published protocol, one code, factor and value at a time."""
    robustness = np.zeros((codes.shape[1], factors.shape[1]))
    for k, code in enumerate(codes.T):
        largest = np.abs(code - code.mean()).max()
        for f, factor in enumerate(factors.T):
            if bins is not None:
                factor = np.digitize(factor, np.histogram(factor, bins)[1][:-1])
            deviations = []
            for value in np.unique(factor):
                group = code[factor == value]
                deviations.append(np.quantile(np.abs(group - group.mean()), quantile))
            robustness[k, f] = 1 - np.mean(deviations) / largest
    return robustness


@pytest.mark.parametrize("quantile", [0.5, 0.99, 1.0])
@pytest.mark.parametrize("bins", [None, 5, 20])
def test_is_the_published_protocol(rng, quantile, bins):
    factors = rng.integers(0, DSPRITES, size=(1_500, 5))
    mixing = rng.normal(size=(5, 6)) * (rng.random((5, 6)) < 0.4)
    codes = factors @ mixing + rng.normal(size=(1_500, 6))
    result = irs(codes, factors, quantile=quantile, bins=bins)
    expected = reference_robustness(codes, factors, quantile, bins)
    np.testing.assert_allclose(result.robustness, expected, atol=1e-12)
    np.testing.assert_allclose(result.per_code, expected.max(axis=1), atol=1e-12)
    np.testing.assert_array_equal(result.parents, expected.argmax(axis=1))
    weights = np.abs(codes - codes.mean(axis=0)).max(axis=0)
    np.testing.assert_allclose(result.max_deviations, weights, rtol=1e-12)
    assert result.score == pytest.approx(expected.max(axis=1) @ weights / weights.sum(), abs=1e-12)


def test_perfect_and_duplicated_codes_get_one_unless_values_share_a_bin(rng):
    factors = rng.integers(0, DSPRITES, size=(10_000, 5))
    assert irs(factors, factors, bins=None).score == pytest.approx(1, abs=1e-12)
    few = factors[:, :2]
    assert irs(np.hstack([few, -3 * few]), few).score == pytest.approx(1, abs=1e-12)
    shared = irs(factors, factors)
    assert shared.score == pytest.approx(0.985, abs=0.01)
    np.testing.assert_array_equal(shared.parents, np.arange(5))
    # pairs of 40 values in 20 bins: half a step of at most 19.5 steps
    assert shared.per_code[2] == pytest.approx(1 - 0.5 / 19.5, abs=0.003)


def test_a_rotation_by_45_degrees(rng):
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]).repeat(25, axis=0)
    turned = bits @ [[1, 1], [1, -1]]
    # a sum of two bits deviates by 1 at most, and by 1/2 where one of them is known
    np.testing.assert_allclose(irs(turned, bits).robustness, 0.5, atol=1e-12)


def test_noise_does_not_get_zero(rng):
    factors = rng.integers(0, DSPRITES, size=(10_000, 5))
    assert irs(rng.normal(size=(10_000, 10)), factors).score == pytest.approx(0.36, abs=0.05)


def test_constant_codes_are_left_out(rng):
    factors = rng.integers(0, [3, 6], size=(1_000, 2))
    # the variance of this constant is rounding, not 0
    codes = np.concatenate([np.full((1_000, 1), 0.1), factors], axis=1)
    result = irs(codes, factors)
    assert result.score == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(result.active_codes, [False, True, True])
    np.testing.assert_array_equal(result.parents, [-1, 0, 1])
    assert np.isnan(result.robustness[0]).all()
    assert result.max_deviations[0] == 0
    nothing = irs(codes[:, :1], factors)
    assert nothing.score == 0
    assert not nothing.active_codes.any()


def test_codes_weigh_by_their_largest_deviation(rng):
    factors = rng.integers(0, 2, size=(1_000, 2))
    noise = rng.uniform(-1, 1, size=(1_000, 1))
    wide, narrow = (irs(np.hstack([factors, c * noise]), factors).score for c in (100, 0.01))
    assert wide < 0.2
    assert narrow > 0.95


def test_order_and_sign_do_not_matter(rng):
    factors = rng.integers(0, [3, 6, 8], size=(2_000, 3))
    codes = factors @ rng.normal(size=(3, 5)) + rng.normal(size=(2_000, 5))
    result = irs(codes, factors)
    points = rng.permutation(2_000)
    moved = irs(3 - codes[points, ::-1], factors[points, ::-1])
    np.testing.assert_allclose(moved.robustness[::-1, ::-1], result.robustness, atol=1e-12)
    assert moved.score == pytest.approx(result.score, abs=1e-12)


def test_a_factor_with_one_value_is_left_out_and_reported(rng):
    factors = rng.integers(0, [3, 1, 6], size=(1_000, 3))
    codes = factors @ rng.normal(size=(3, 4))
    result = irs(codes, factors)
    assert result.excluded_factors == (1,)
    assert result.score == irs(codes, factors[:, [0, 2]]).score
    assert np.isnan(result.robustness[:, 1]).all()
    assert (result.parents != 1).all()


def test_tensors_give_what_arrays_give(rng):
    factors = rng.integers(0, 5, size=(500, 2))
    codes = rng.normal(size=(500, 3)).astype(np.float32)
    tensor = torch.from_numpy(codes).requires_grad_()
    assert irs(tensor, torch.from_numpy(factors)).score == irs(codes, factors).score


GOOD = np.random.default_rng(1).normal(size=(100, 3))
FACTORS = np.random.default_rng(1).integers(0, 4, size=(100, 2))


@pytest.mark.parametrize(
    ("codes", "factors", "options", "message"),
    [
        (GOOD[:90], FACTORS, {}, "same number of points, got 90 codes and 100 factors"),
        (GOOD[:1], FACTORS[:1], {}, "at least 2 points are needed, got 1"),
        (GOOD, FACTORS / 1, {}, "factors must be integers, got float64"),
        (GOOD * np.inf, FACTORS, {}, "codes must be finite"),
        (GOOD, 0 * FACTORS, {}, r"at least one factor must take two values or more, got \[1, 1\]"),
        (GOOD, FACTORS, {"quantile": 0.0}, r"quantile must be in \(0, 1\], got 0.0"),
        (GOOD, FACTORS, {"quantile": np.nan}, r"quantile must be in \(0, 1\], got nan"),
        (GOOD, FACTORS, {"bins": 1}, "bins must be at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(codes, factors, options, message):
    with pytest.raises(ValueError, match=message):
        irs(codes, factors, **options)
