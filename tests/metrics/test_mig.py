import time

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from disentangle.metrics import mig
from disentangle.metrics.information import discretize, entropy, mutual_information

DSPRITES = [3, 6, 40, 32, 32]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def reference_mig(codes, factors, bins):
    """The published protocol, one pair at a time."""
    gaps = []
    for factor in factors.T:
        information = []
        for code in codes.T:
            bin_of = np.digitize(code, np.histogram(code, bins)[1][:-1])
            information.append(mutual_info_score(factor, bin_of))
        second, first = sorted(information)[-2:]
        gaps.append((first - second) / mutual_info_score(factor, factor))
    return np.mean(gaps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [2, 7, 20])
def test_is_the_published_protocol(rng, dtype, bins):
    factors = rng.integers(0, DSPRITES, size=(2_000, 5))
    mixing = rng.normal(size=(5, 6)) * (rng.random((5, 6)) < 0.4)
    codes = (factors @ mixing + rng.normal(size=(2_000, 6))).astype(dtype)
    assert mig(codes, factors, bins=bins).score == pytest.approx(
        reference_mig(codes, factors, bins), abs=1e-12
    )


def test_mutual_information_is_that_of_scikit_learn(rng):
    left = rng.integers(-3, [4, 9, 1, -2], size=(500, 4))
    right = left[:, :3] + rng.integers(0, [1, 2, 9], size=(500, 3))
    ours = mutual_information(left, right)
    theirs = [[mutual_info_score(a, b) for b in right.T] for a in left.T]
    np.testing.assert_allclose(ours, theirs, atol=1e-13)
    np.testing.assert_allclose(entropy(left), [mutual_info_score(a, a) for a in left.T], atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bins_are_those_of_numpy(rng, dtype):
    # integers and thirds fall on edges, where rounding decides
    codes = np.stack(
        [rng.normal(size=999), rng.integers(0, 21, 999), rng.integers(0, 61, 999) / 3, np.ones(999)]
    ).T.astype(dtype)
    expected = [np.digitize(x, np.histogram(x, 20)[1][:-1]) for x in codes.T]
    np.testing.assert_array_equal(discretize(codes, 20), np.stack(expected, axis=1))


def test_bins_of_a_code_that_varies_in_its_last_bit():
    codes = np.full((100, 1), 1e4, dtype=np.float32)
    codes[:50] = np.nextafter(codes[0], np.float32(2e4))
    assert len(np.unique(discretize(codes, 20))) == 2


def test_perfect_codes_reach_the_known_values():
    # every value of a factor once: 12 bins hold two of the 32 values, 8 bins hold one
    line = np.arange(32)[:, None]
    assert mig(line, line).score == pytest.approx(0.85, abs=1e-12)
    grid = np.stack(np.meshgrid(*map(np.arange, DSPRITES[:4]), indexing="ij"), axis=-1)
    gaps = mig(grid.reshape(-1, 4), grid.reshape(-1, 4)).gaps
    np.testing.assert_allclose(gaps, [1, 1, 0.8120981752908924, 0.85], atol=1e-12)


def test_duplicated_constant_and_noise_codes(rng):
    factors = rng.integers(0, DSPRITES, size=(10_000, 5))
    assert mig(np.concatenate([factors, -2 * factors], axis=1), factors).score < 1e-2
    assert mig(np.concatenate([factors, factors], axis=1), factors).score == 0
    constant = mig(np.ones((10_000, 3)), factors)
    assert constant.score == 0
    assert not constant.mutual_information.any()
    assert mig(rng.normal(size=(10_000, 10)), factors).score < 5e-3


def test_one_code_has_no_second(rng):
    factors = rng.integers(0, 4, size=(1_000, 2))
    result = mig(factors[:, :1], factors)
    assert result.mutual_information.shape == (1, 2)
    assert result.gaps[0] == pytest.approx(1, abs=1e-12)


def test_order_and_sign_do_not_matter(rng):
    factors = rng.integers(0, [3, 6, 8], size=(3_000, 3))
    codes = factors @ rng.normal(size=(3, 5)) + rng.normal(size=(3_000, 5))  # no ties at edges
    score = mig(codes, factors).score
    points = rng.permutation(3_000)
    assert mig(codes[points], factors[points]).score == pytest.approx(score, abs=1e-12)
    assert mig(codes[:, ::-1], factors[:, ::-1]).score == pytest.approx(score, abs=1e-12)
    assert mig(-codes, factors).score == pytest.approx(score, abs=1e-12)
    assert mig(codes, 100 - 7 * factors).score == pytest.approx(score, abs=1e-12)


def test_a_factor_with_one_value_is_left_out_and_reported(rng):
    factors = rng.integers(0, [3, 1, 6], size=(1_000, 3))
    result = mig(factors, factors)
    assert result.excluded_factors == (1,)
    assert result.score == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(np.isnan(result.gaps), [False, True, False])


def test_tensors_give_what_arrays_give(rng):
    factors = rng.integers(0, 5, size=(500, 2))
    codes = rng.normal(size=(500, 3)).astype(np.float32)
    tensor = torch.from_numpy(codes).requires_grad_()
    assert mig(tensor, torch.from_numpy(factors)).score == mig(codes, factors).score
    assert 0 <= mig(tensor.bfloat16(), torch.from_numpy(factors)).score <= 1


def test_ten_thousand_points_take_less_than_a_second(rng):
    factors = rng.integers(0, DSPRITES, size=(10_000, 5))
    codes = rng.normal(size=(10_000, 10))
    start = time.perf_counter()
    mig(codes, factors)
    assert time.perf_counter() - start < 1


GOOD = np.random.default_rng(1).normal(size=(100, 3))
FACTORS = np.random.default_rng(1).integers(0, 4, size=(100, 2))


@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (GOOD[:, 0], FACTORS, r"shape \(N, K\) with K ≥ 1, got \(100,\)"),
        (GOOD[:, :0], FACTORS, r"got \(100, 0\)"),
        (GOOD, FACTORS[:, 0], r"shape \(N, F\) with F ≥ 1, got \(100,\)"),
        (GOOD[:90], FACTORS, "same number of points, got 90 codes and 100 factors"),
        (GOOD[:19], FACTORS[:19], "at least 20 points are needed, got 19"),
        (GOOD, FACTORS.astype(float), "factors must be integers, got float64"),
        (GOOD.astype(complex), FACTORS, "codes must be real numbers, got complex128"),
        (np.where(GOOD > 2, np.nan, GOOD), FACTORS, "codes must be finite, got . NaN or infinite"),
        (np.where(GOOD > 2, np.inf, GOOD), FACTORS, "codes must be finite, got . NaN or infinite"),
        (
            GOOD.astype(np.float32) * np.float32(1e38),  # whose range would be infinite
            FACTORS,
            r"codes must be at most 8.5e\+37 in size",
        ),
        (GOOD, 0 * FACTORS, r"at least one factor must take two values or more, got \[1, 1\]"),
    ],
)
def test_bad_input_is_refused(codes, factors, message):
    with pytest.raises(ValueError, match=message):
        mig(codes, factors)


def test_bad_bins_are_refused():
    with pytest.raises(ValueError, match="bins must be at least 2, got 1"):
        mig(GOOD, FACTORS, bins=1)
