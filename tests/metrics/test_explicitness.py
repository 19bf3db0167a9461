import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import MultiLabelBinarizer

from disentangle.metrics.explicitness import explicitness

SIZES = [2, 3, 8]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def split(codes, factors, train=2 / 3):
    n = round(train * len(codes))
    return codes[:n], factors[:n], codes[n:], factors[n:]


def mixed_codes(rng, points, sizes=SIZES, dtype=np.float64):
    factors = rng.integers(0, sizes, size=(points, len(sizes)))
    codes = factors @ rng.normal(size=(len(sizes), 4)) + rng.normal(size=(points, 4))
    return codes.astype(dtype), factors


def reference_explicitness(codes, factors, test_codes, test_factors):
    """The published protocol, one factor at a time: scores on the training and test points."""
    mean, std = codes.mean(axis=0), codes.std(axis=0)
    x, x_test = (codes - mean) / std, (test_codes - mean) / std
    scores = []
    for y, y_test in zip(factors.T, test_factors.T, strict=True):
        model = LogisticRegression().fit(x, y)
        scores.append(
            [
                roc_auc_score(
                    MultiLabelBinarizer().fit_transform(labels[:, None]),
                    model.predict_proba(points),
                )
                for points, labels in ((x, y), (x_test, y_test))
            ]
        )
    return np.array(scores).T


def test_is_the_published_protocol(rng):
    data = split(*mixed_codes(rng, 1_500))
    result = explicitness(*data)
    train, test = reference_explicitness(*data)
    np.testing.assert_allclose(result.per_factor, test, atol=1e-12)
    assert result.score == pytest.approx(test.mean(), abs=1e-12)
    assert result.train_score == pytest.approx(train.mean(), abs=1e-12)


def test_one_vs_rest_fits_one_regression_per_value(rng):
    codes, y, test_codes, y_test = split(*mixed_codes(rng, 900))
    x, x_test = ((c - codes.mean(axis=0)) / codes.std(axis=0) for c in (codes, test_codes))
    result = explicitness(codes, y, test_codes, y_test, one_vs_rest=True)
    for f, size in enumerate(SIZES):
        expected = [
            roc_auc_score(
                y_test[:, f] == value,
                LogisticRegression().fit(x, y[:, f] == value).predict_proba(x_test)[:, 1],
            )
            for value in range(size)
        ]
        np.testing.assert_allclose(result.per_value[f], expected, atol=1e-12)


def test_perfect_rotated_and_duplicated_codes_get_nearly_one(rng):
    factors = rng.integers(0, [2, 3, 4], size=(1_500, 3))
    train, y, test, y_test = split(factors / 1, factors)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert explicitness(train, y, test, y_test).score > 0.999
    assert explicitness(train @ rotation, y, test @ rotation, y_test).score > 0.999
    assert explicitness(np.hstack([train] * 2), y, np.hstack([test] * 2), y_test).score > 0.999


def test_noise_and_constants_get_chance(rng):
    factors = rng.integers(0, SIZES, size=(3_000, 3))
    noise = explicitness(*split(rng.normal(size=(3_000, 5)), factors))
    assert noise.score == pytest.approx(0.5, abs=0.03)
    constant = explicitness(*split(np.full((3_000, 2), 0.1), factors))
    assert constant.score == constant.train_score == 0.5


@pytest.mark.parametrize("value", [0.1, 1e6])
def test_a_constant_code_changes_nothing(rng, value):
    train, y, test, y_test = split(*mixed_codes(rng, 900))
    result = explicitness(train, y, test, y_test)
    wider = [np.hstack([codes, np.full((len(codes), 1), value)]) for codes in (train, test)]
    # the same minimum, which the solver reaches on a slightly different way
    assert explicitness(wider[0], y, wider[1], y_test).score == pytest.approx(
        result.score, abs=1e-12
    )


def test_one_code_is_enough(rng):
    factors = rng.integers(0, 3, size=(900, 2))
    result = explicitness(*split(factors[:, :1], factors))
    assert result.per_factor[0] == 1
    assert result.per_factor[1] == pytest.approx(0.5, abs=0.1)


def test_a_value_missing_from_the_test_points_is_left_out(rng):
    train, y, test, y_test = split(*mixed_codes(rng, 900))
    everything = explicitness(train, y, test, y_test)
    kept = y_test[:, 2] != 5
    result = explicitness(train, y, test[kept], y_test[kept])
    np.testing.assert_array_equal(np.isnan(result.per_value[2]), np.arange(8) == 5)
    assert result.per_factor[2] == pytest.approx(np.nanmean(result.per_value[2]))
    assert result.train_score == everything.train_score
    assert result.excluded_factors == ()


def test_a_value_missing_from_training_counts_as_one_of_the_others(rng):
    train, y, test, y_test = split(*mixed_codes(rng, 900))
    kept = y[:, 2] != 5
    result = explicitness(train[kept], y[kept], test, y_test)
    assert len(result.per_value[2]) == 7
    renamed = np.where(y_test == 5, 99, y_test)
    again = explicitness(train[kept], y[kept], test, renamed)
    np.testing.assert_array_equal(again.per_value[2], result.per_value[2])


@pytest.mark.parametrize("split_name", ["training", "test", "unknown values"])
def test_a_factor_with_one_value_is_left_out_and_reported(rng, split_name):
    train, y, test, y_test = split(*mixed_codes(rng, 900, [3, 4, 2]))
    both = explicitness(train, y[:, [0, 2]], test, y_test[:, [0, 2]])
    if split_name == "training":
        y[:, 1] = 1
    else:
        y_test[:, 1] = 1 if split_name == "test" else 50 + y_test[:, 1]
    result = explicitness(train, y, test, y_test)
    assert result.excluded_factors == (1,)
    np.testing.assert_array_equal(np.isnan(result.per_factor), [False, True, False])
    assert np.isnan(result.per_value[1]).all()
    assert result.score == both.score
    assert result.train_score == both.train_score


def test_order_sign_and_scale_do_not_matter(rng):
    train, y, test, y_test = split(*mixed_codes(rng, 900))
    result = explicitness(train, y, test, y_test)
    points, scales = rng.permutation(len(train)), np.array([-1, 100, -0.01, 1])
    moved = explicitness(
        (scales * train)[points, ::-1],
        y[points, ::-1],
        (5 + scales * test - 5)[:, ::-1],
        y_test[:, ::-1],
    )
    np.testing.assert_allclose(moved.per_factor[::-1], result.per_factor, atol=1e-3)


def test_workers_do_not_change_the_numbers(rng):
    data = split(*mixed_codes(rng, 600))
    first, second = (explicitness(*data, workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(first.per_factor, second.per_factor)


def test_tensors_give_what_arrays_give(rng):
    data = split(*mixed_codes(rng, 600, dtype=np.float32))
    tensors = [torch.from_numpy(array) for array in data]
    assert explicitness(*tensors).score == explicitness(*data).score


GOOD = np.random.default_rng(1).normal(size=(90, 3))
FACTORS = np.random.default_rng(1).integers(0, 4, size=(90, 2))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((GOOD, FACTORS, GOOD[:, :2], FACTORS), {}, "codes must have.*columns, got 3 and 2"),
        ((GOOD, FACTORS, GOOD, FACTORS[:, :1]), {}, "factors must have.*columns, got 2 and 1"),
        ((GOOD, FACTORS, GOOD[:9], FACTORS), {}, "same number of points, got 9 codes and 90"),
        ((GOOD, FACTORS / 2, GOOD, FACTORS), {}, "factors must be integers, got float64"),
        ((GOOD * np.nan, FACTORS, GOOD, FACTORS), {}, "codes must be finite"),
        ((GOOD, 0 * FACTORS, GOOD, FACTORS), {}, "at least one factor must take two values"),
        ((GOOD, FACTORS, GOOD, 0 * FACTORS), {}, "test factors must have values that training"),
        ((GOOD, FACTORS, GOOD, FACTORS), {"max_iterations": 0}, "max_iterations must be at least"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        explicitness(*arguments, **options)
