import time

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from disentangle.metrics.sap import sap

DSPRITES = [3, 6, 40, 32, 32]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def split(codes, factors, train=2 / 3):
    n = round(train * len(codes))
    return codes[:n], factors[:n], codes[n:], factors[n:]


def standardised(factors, sizes):
    return (factors - (np.array(sizes) - 1) / 2) / np.sqrt(np.maximum(np.square(sizes) - 1, 1) / 12)


def reference_accuracies(codes, factors, test_codes, test_factors, **options):
    """The published protocol, one classifier after the other."""
    return np.array(
        [
            [
                LinearSVC(C=0.01, class_weight="balanced", **options)
                .fit(x[:, None], y)
                .score(x_test[:, None], y_test)
                for y, y_test in zip(factors.T, test_factors.T, strict=True)
            ]
            for x, x_test in zip(codes.T, test_codes.T, strict=True)
        ]
    )


def mixed_codes(rng, points, sizes, dtype=np.float64):
    factors = rng.integers(0, sizes, size=(points, len(sizes)))
    mixing = rng.normal(size=(len(sizes), 4)) * (rng.random((len(sizes), 4)) < 0.5)
    codes = standardised(factors, sizes) @ mixing + 0.3 * rng.normal(size=(points, 4))
    return codes.astype(dtype), factors


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracies_are_those_of_scikit_learn_with_a_small_tolerance(rng, dtype):
    data = split(*mixed_codes(rng, 3_000, [2, 3, 6, 20], dtype))
    result = sap(*data)
    expected = reference_accuracies(*data, dual=False, tol=1e-10)
    np.testing.assert_array_equal(result.predictability, expected)
    first, second = np.sort(expected, axis=0)[:-3:-1]
    np.testing.assert_allclose(result.gaps, first - second, atol=1e-15)
    assert result.score == pytest.approx((first - second).mean(), abs=1e-15)


def test_accuracies_are_near_those_of_scikit_learn_with_its_default_tolerance(rng):
    data = split(*mixed_codes(rng, 3_000, [2, 3, 6, 20]))
    difference = sap(*data).predictability - reference_accuracies(*data)
    assert np.abs(difference).max() <= 3 / 1_000  # three of the test points


def test_continuous_factors_are_judged_by_squared_correlations(rng):
    codes, factors = mixed_codes(rng, 500, [2, 3, 6])
    result = sap(codes, factors, continuous_factors=True)
    expected = np.corrcoef(codes, factors, rowvar=False)[:4, 4:] ** 2
    np.testing.assert_allclose(result.predictability, expected, atol=1e-14)
    first, second = np.sort(expected, axis=0)[:-3:-1]
    assert result.score == pytest.approx((first - second).mean(), abs=1e-14)
    real = sap(codes, factors / 7 - 1, continuous_factors=True)
    np.testing.assert_allclose(real.predictability, expected, atol=1e-14)


def test_perfect_codes_reach_the_known_values(rng):
    factors = rng.integers(0, DSPRITES, size=(15_000, 5))
    codes = standardised(factors, DSPRITES)
    result = sap(*split(codes, factors))
    assert result.score == pytest.approx(0.25, abs=0.02)
    assert result.predictability[0, 0] == 1
    np.testing.assert_array_equal(result.predictability.argmax(axis=0), np.arange(5))
    assert sap(codes, factors, continuous_factors=True).score > 0.99
    binary = rng.integers(0, 2, size=(3_000, 3))
    assert sap(*split(binary, binary)).score == pytest.approx(0.5, abs=0.05)


def test_duplicated_and_constant_codes_have_no_gap(rng):
    codes, factors = mixed_codes(rng, 1_500, [3, 6])
    train, y, test, y_test = split(codes, factors)
    twice = sap(np.hstack([train, train]), y, np.hstack([test, test]), y_test)
    assert twice.score == 0
    mirrored = sap(np.hstack([train, -train]), y, np.hstack([test, -test]), y_test)
    assert mirrored.score == 0
    assert sap(0 * train, y, 0 * test, y_test).score == 0
    assert sap(0 * train + 0.1, y, continuous_factors=True).score == 0


def test_the_protocol_calls_small_variances_constant(rng):
    codes, factors = mixed_codes(rng, 500, [3, 6])
    small = sap(codes * [1, 1e-7, 1e-5, 1], factors, continuous_factors=True).predictability
    expected = sap(codes, factors, continuous_factors=True).predictability
    assert (expected[1] > 0).all()
    np.testing.assert_array_equal(small[1], 0)
    np.testing.assert_allclose(small[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-9)


def test_a_constant_code_predicts_the_most_frequent_value(rng):
    factors = rng.choice(3, p=[0.2, 0.5, 0.3], size=(3_000, 1))
    result = sap(*split(np.full((3_000, 2), 0.1), factors))
    np.testing.assert_allclose(result.predictability, (factors[2_000:] == 1).mean())


def test_noise_gets_almost_nothing(rng):
    factors = rng.integers(0, DSPRITES, size=(15_000, 5))
    codes = rng.normal(size=(15_000, 10))
    assert sap(*split(codes, factors)).score < 0.01
    assert sap(codes, factors, continuous_factors=True).score < 1e-3


def test_rotated_codes_get_less_than_perfect_ones(rng):
    factors = rng.integers(0, 4, size=(3_000, 2))
    codes = standardised(factors, [4, 4])
    turned = codes @ (np.array([[1, 1], [1, -1]]) / np.sqrt(2))
    assert sap(*split(codes, factors)).score > 0.2
    assert sap(*split(turned, factors)).score < 0.05
    assert sap(turned, factors, continuous_factors=True).score < 0.05


@pytest.mark.parametrize("options", [{}, {"continuous_factors": True}])
def test_the_second_best_of_one_code_is_a_constant(rng, options):
    factors = rng.integers(0, 4, size=(1_500, 2))
    one, zero = factors[:, :1] / 1, np.zeros((1_500, 1))
    alone = sap(*split(one, factors), **options)
    assert alone.predictability.shape == (1, 2)
    beside_zero = sap(*split(np.hstack([one, zero]), factors), **options)
    np.testing.assert_array_equal(alone.gaps, beside_zero.gaps)


@pytest.mark.parametrize("options", [{}, {"continuous_factors": True}])
def test_order_and_sign_do_not_matter(rng, options):
    codes, factors = mixed_codes(rng, 1_500, [2, 3, 6])
    train, y, test, y_test = split(codes, factors)
    result = sap(train, y, test, y_test, **options)
    points = rng.permutation(len(train))
    moved = sap(-train[points, ::-1], y[points, ::-1], -test[:, ::-1], y_test[:, ::-1], **options)
    np.testing.assert_allclose(moved.predictability[::-1, ::-1], result.predictability, atol=1e-12)
    assert moved.score == pytest.approx(result.score, abs=1e-12)


def test_values_are_names(rng):
    train, y, test, y_test = split(*mixed_codes(rng, 1_500, [2, 3, 6]))
    renamed = sap(train, 7 * y - 20, test, 7 * y_test - 20)
    np.testing.assert_array_equal(
        renamed.predictability, sap(train, y, test, y_test).predictability
    )


def test_a_test_value_that_training_did_not_have_is_missed(rng):
    factors = rng.integers(0, 3, size=(900, 1))
    codes = np.hstack([10.0 * factors, rng.normal(size=(900, 1))])
    train, y, test, y_test = split(codes, factors)
    seen = y[:, 0] < 2
    result = sap(train[seen], y[seen], test, y_test)
    assert result.predictability[0, 0] == pytest.approx((y_test < 2).mean())
    shifted = sap(train[seen], y[seen], test, y_test - 3)
    assert not shifted.predictability.any()


def test_a_factor_with_one_value_is_left_out_and_reported(rng):
    codes, factors = mixed_codes(rng, 900, [3, 1, 4])
    train, y, test, y_test = split(codes, factors)
    for options in ({}, {"continuous_factors": True}):
        result = sap(train, y, test, y_test, **options)
        without = sap(train, y[:, [0, 2]], test, y_test[:, [0, 2]], **options)
        assert result.excluded_factors == (1,)
        assert result.score == without.score
        np.testing.assert_array_equal(np.isnan(result.gaps), [False, True, False])
        assert np.isnan(result.predictability[:, 1]).all()


def test_tensors_give_what_arrays_give(rng):
    data = split(*mixed_codes(rng, 600, [3, 4], np.float32))
    tensors = [torch.from_numpy(array) for array in data]
    assert sap(*tensors).score == sap(*data).score


def test_ten_thousand_points_take_less_than_a_second(rng):
    factors = rng.integers(0, DSPRITES, size=(15_000, 5))
    data = split(rng.normal(size=(15_000, 10)), factors)
    start = time.process_time()
    sap(*data)
    assert time.process_time() - start < 1


GOOD = np.random.default_rng(1).normal(size=(90, 3))
FACTORS = np.random.default_rng(1).integers(0, 4, size=(90, 2))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((GOOD, FACTORS), {}, "test_codes and test_factors are needed, unless"),
        ((GOOD, FACTORS, GOOD), {}, "test_codes and test_factors are needed, unless"),
        ((GOOD, FACTORS, GOOD[:, :2], FACTORS), {}, "codes must have.*columns, got 3 and 2"),
        ((GOOD, FACTORS, GOOD, FACTORS[:, :1]), {}, "factors must have.*columns, got 2 and 1"),
        ((GOOD, FACTORS, GOOD[:9], FACTORS), {}, "same number of points, got 9 codes and 90"),
        ((GOOD, FACTORS, GOOD[:0], FACTORS[:0]), {}, "at least 1 points are needed, got 0"),
        ((GOOD, FACTORS / 2, GOOD, FACTORS), {}, "factors must be integers, got float64"),
        ((GOOD * np.nan, FACTORS, GOOD, FACTORS), {}, "codes must be finite"),
        ((GOOD, FACTORS * np.nan), {"continuous_factors": True}, "factors must be finite"),
        (
            (GOOD, FACTORS * 1e-200),  # whose squares would be 0: NaN before
            {"continuous_factors": True},
            r"factors must be at most 1e\+75 in size and vary by 1e-75 or not at all",
        ),
        ((GOOD, FACTORS, GOOD, FACTORS), {"cost": 0.0}, "cost must be positive and finite, got 0"),
        ((GOOD, 0 * FACTORS, GOOD, FACTORS), {}, "at least one factor must take two values"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        sap(*arguments, **options)
