import itertools
import math
import sys

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingClassifier

from disentangle.metrics.dci import dci, histogram_dci
from disentangle.metrics.histogram_boosting import (
    _newton_steps,
    fit_histogram_boosting,
    quantile_bins,
)

BOTH = pytest.mark.parametrize("metric", [dci, histogram_dci])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def split(codes, factors, points):
    return codes[:points], factors[:points], codes[points:], factors[points:]


def noisy(rng, sizes, points=450, noise=0.5, extra=2):
    """Noisy copies of the factors beside noise; two thirds of the points are for training."""
    factors = rng.integers(0, sizes, size=(points, len(sizes)))
    codes = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    codes = codes + noise * rng.normal(size=codes.shape)
    codes = np.concatenate([codes, rng.normal(size=(points, extra))], axis=1)
    return split(codes, factors, points * 2 // 3)


def entropy_plainly(weights, base):
    weights = [weight + 1e-11 for weight in weights]
    shares = [weight / sum(weights) for weight in weights]
    return -sum(share * math.log(share, base) for share in shares)


def reference_dci(codes, factors, test_codes, test_factors):
    """The published protocol, one factor, code and entropy at a time."""
    n_codes, n_factors = codes.shape[1], factors.shape[1]
    R, train, test = np.zeros((n_codes, n_factors)), [], []
    for f in range(n_factors):
        model = GradientBoostingClassifier(random_state=0).fit(codes, factors[:, f])
        R[:, f] = np.abs(model.feature_importances_)
        train.append(np.mean(model.predict(codes) == factors[:, f]))
        test.append(np.mean(model.predict(test_codes) == test_factors[:, f]))
    total, disentanglement, completeness = R.sum(), 0.0, 0.0
    for row in R:
        disentanglement += (1 - entropy_plainly(row, n_factors)) * row.sum() / total
    for column in R.T:
        completeness += (1 - entropy_plainly(column, n_codes)) * column.sum() / total
    return R, disentanglement, completeness, np.mean(test), np.mean(train)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_is_the_published_protocol(rng, dtype):
    data = noisy(rng, [3, 2], points=300)
    data = (data[0].astype(dtype), data[1], data[2].astype(dtype), data[3])
    result = dci(*data)
    R, disentanglement, completeness, test, train = reference_dci(*data)
    np.testing.assert_array_equal(result.importance, R)  # to the bit
    assert result.score == pytest.approx(disentanglement, abs=1e-12)
    assert result.completeness == pytest.approx(completeness, abs=1e-12)
    assert result.informativeness == test
    assert result.train_informativeness == train
    assert result.estimator == "gradient boosting"
    assert 0.2 < result.score < 0.9


@BOTH
def test_workers_do_not_matter_and_the_seed_decides_ties(rng, metric):
    codes, factors, *_ = noisy(rng, [2, 2], points=90)
    codes = np.concatenate([codes, codes], axis=1)  # equally good splits
    data = codes, factors, codes, factors
    first, again, other = (metric(*data, workers=w, seed=s) for w, s in ((1, 3), (3, 3), (1, 4)))
    np.testing.assert_array_equal(first.importance, again.importance)
    assert (first.importance != other.importance).any()


def test_progress_counts_every_tree_and_changes_nothing(rng):
    codes, factors, *_ = noisy(rng, [2, 3], points=90)
    factors = np.pad(factors, [(0, 0), (0, 1)])  # and one that is constant
    data, calls = (codes, factors, codes, factors), []
    watched = dci(*data, workers=2, progress=lambda *call: calls.append(call))
    # 100 stages, of one tree for two values and of three for three
    grown, totals = zip(*calls, strict=True)
    assert set(totals) == {400}
    assert len(calls) == 200
    assert list(grown) == sorted(set(grown))
    assert grown[-1] == 400
    np.testing.assert_array_equal(watched.importance, dci(*data).importance)


@BOTH
def test_perfect_codes_get_one(rng, metric):
    factors = rng.integers(0, [3, 2, 2], size=(300, 3))
    result = metric(*split(factors @ [[0, 0, -2], [1, 0, 0], [0, 5, 0]], factors, 200))
    assert result.score == pytest.approx(1, abs=1e-3)
    assert result.completeness == pytest.approx(1, abs=1e-3)
    assert result.informativeness == result.train_informativeness == 1
    np.testing.assert_allclose(result.importance, np.eye(3)[[1, 2, 0]], atol=1e-3)


@BOTH
def test_duplicated_codes_are_disentangled_and_half_complete(rng, metric):
    factors = rng.integers(0, [3, 2], size=(450, 2))
    result = metric(*split(np.concatenate([factors, factors], axis=1), factors, 300))
    assert result.score == pytest.approx(1, abs=1e-3)
    # one copy of each split is drawn: the entropy to the base 4 of two halves is 1/2
    assert result.completeness == pytest.approx(0.5, abs=0.05)
    assert result.informativeness == 1


def test_the_negative_of_a_code_is_as_good_as_the_code(rng):
    codes, factors, *_ = noisy(rng, [3, 4], points=900, extra=0)
    codes = np.concatenate([codes, -codes], axis=1)
    result = histogram_dci(codes, factors, codes, factors)
    share = result.importance[:2] / (result.importance[:2] + result.importance[2:])
    assert ((share > 0.3) & (share < 0.7)).all()


@BOTH
def test_rotated_codes_are_entangled(rng, metric):
    factors = rng.integers(0, [3, 3], size=(300, 2))
    result = metric(*split(factors @ [[1, 1], [1, -1]], factors, 200))
    assert result.score < 0.1
    assert result.completeness < 0.1
    assert result.informativeness > 0.9


@BOTH
def test_noise_gets_nothing(rng, metric):
    factors = rng.integers(0, [3, 2], size=(450, 2))
    result = metric(*split(rng.normal(size=(450, 5)), factors, 300))
    assert result.score < 0.05
    assert result.completeness < 0.05
    assert result.informativeness == pytest.approx((1 / 3 + 1 / 2) / 2, abs=0.1)


@BOTH
def test_constant_codes_get_zero(rng, metric):
    factors = rng.integers(0, [2, 2], size=(150, 2))
    result = metric(*split(np.ones((150, 3)), factors, 100))
    assert not result.importance.any()
    assert result.score == pytest.approx(0, abs=1e-12)
    assert result.completeness == pytest.approx(0, abs=1e-12)
    frequent = [np.bincount(y).argmax() for y in factors[:100].T]
    assert result.informativeness == (factors[100:] == frequent).mean()


@BOTH
def test_a_constant_code_beside_others_gets_no_importance(rng, metric):
    data = noisy(rng, [2, 2], points=150)
    codes, test_codes = (np.insert(x, 1, 7.0, axis=1) for x in (data[0], data[2]))
    result = metric(codes, data[1], test_codes, data[3])
    assert (result.importance[1] == 0).all()
    np.testing.assert_allclose(result.importance.sum(axis=0), 1, atol=1e-6)


@BOTH
def test_one_code_only(rng, metric):
    factors = rng.integers(0, [3, 2], size=(150, 2))
    result = metric(*split(factors[:, :1], factors, 100))
    np.testing.assert_array_equal(result.completeness_per_factor, 1)
    assert result.completeness == pytest.approx(1, abs=1e-12)
    constant = metric(*split(0 * factors[:, :1], factors, 100))
    assert constant.score == pytest.approx(0, abs=1e-12)
    assert constant.completeness == 0


@BOTH
def test_one_factor_only(rng, metric):
    data = noisy(rng, [3], points=150)
    result = metric(*data)
    assert result.score == 1
    np.testing.assert_array_equal(result.disentanglement_per_code, 1)
    assert 0 < result.completeness < 1


@BOTH
def test_a_factor_with_one_value_is_left_out_and_reported(rng, metric):
    codes, factors, test_codes, test_factors = noisy(rng, [2, 2, 2], points=150)
    factors[:, 1] = 4
    result = metric(codes, factors, test_codes, test_factors)
    kept = metric(codes, factors[:, [0, 2]], test_codes, test_factors[:, [0, 2]])
    assert result.excluded_factors == (1,)
    assert (result.score, result.completeness) == (kept.score, kept.completeness)
    assert result.informativeness == kept.informativeness
    np.testing.assert_array_equal(result.importance[:, [0, 2]], kept.importance)
    for values in (result.importance[0], result.completeness_per_factor, result.accuracies):
        np.testing.assert_array_equal(np.isnan(values), [False, True, False])


@BOTH
def test_values_of_factors_are_labels_and_new_ones_are_missed(rng, metric):
    factors = rng.integers(0, [3, 2], size=(150, 2))
    codes, factors, test_codes, test_factors = split(factors, factors, 100)
    labels = np.array([100, -5, 7])
    result = metric(codes, labels[factors], test_codes, labels[test_factors])
    assert result.informativeness == 1
    some = np.concatenate([np.full((10, 2), 50), labels[test_factors][10:]])
    np.testing.assert_allclose(metric(codes, labels[factors], test_codes, some).accuracies, 0.8)


@BOTH
def test_order_and_sign_do_not_matter(rng, metric):
    codes, factors, test_codes, test_factors = noisy(rng, [2, 2], points=450)
    score = metric(codes, factors, test_codes, test_factors).score
    points = rng.permutation(len(codes))
    changes = {
        "points": (codes[points], factors[points], test_codes, test_factors),
        "codes": (codes[:, ::-1], factors, test_codes[:, ::-1], test_factors),
        "factors": (codes, factors[:, ::-1], test_codes, test_factors[:, ::-1]),
        "sign": (-codes, factors, -test_codes, test_factors),
        "labels": (codes, 9 - 2 * factors, test_codes, 9 - 2 * test_factors),
    }
    for name, data in changes.items():
        # not exact: splits that are equally good are drawn at random
        assert metric(*data).score == pytest.approx(score, abs=0.03), name


@BOTH
def test_tensors_give_what_arrays_give(rng, metric):
    data = noisy(rng, [2, 2], points=90)
    tensors = [torch.from_numpy(x) for x in data]
    assert metric(*tensors).score == metric(*data).score
    assert 0 <= metric(tensors[0].bfloat16(), *tensors[1:]).score <= 1


@pytest.mark.parametrize("sizes", [[2, 2], [3, 2]])
def test_histogram_is_near_the_exact_one(rng, sizes):
    data = noisy(rng, sizes, points=1_200, extra=3)
    exact, fast = dci(*data), histogram_dci(*data)
    assert fast.score == pytest.approx(exact.score, abs=0.03)
    assert fast.completeness == pytest.approx(exact.completeness, abs=0.03)
    assert fast.informativeness == pytest.approx(exact.informativeness, abs=0.03)
    np.testing.assert_allclose(fast.importance, exact.importance, atol=0.05)


@pytest.mark.parametrize(
    ("points_per_bin", "points", "bins"), [(80, 90, 16), (80, 3_000, 25), (1, 900, 256)]
)
def test_number_of_bins(rng, monkeypatch, points_per_bin, points, bins):
    # the function has the module's name
    module = sys.modules["disentangle.metrics.dci"]
    monkeypatch.setattr(module, "POINTS_PER_BIN", points_per_bin)
    codes = rng.normal(size=(points, 1))
    labels = (codes > 0).astype(int)
    result = histogram_dci(*split(codes, labels, points * 2 // 3))
    assert result.estimator == f"histogram boosting, {bins} bins"
    assert result.informativeness > 0.9
    assert histogram_dci(codes, labels, codes, labels, bins=3).informativeness < 0.9


@pytest.mark.parametrize(("classes", "depth"), [(2, 3), (2, 1), (4, 3), (4, 2), (7, 4)])
@pytest.mark.parametrize(("stages", "tolerance"), [(1, 1e-7), (10, 1e-4)])
def test_histogram_boosting_is_that_of_scikit_learn(rng, classes, depth, stages, tolerance):
    labels = rng.integers(0, classes, size=1_000)
    features = np.stack([labels + rng.integers(0, s, size=1_000) for s in (2, 5, 9, 30)], axis=1)
    features = np.concatenate([features, rng.integers(0, 200, size=(1_000, 2))], axis=1)
    x, test_x, y = features[:700], features[700:], labels[:700]
    ours = fit_histogram_boosting(x, y, test_x, stages=stages, depth=depth)
    theirs = GradientBoostingClassifier(n_estimators=stages, max_depth=depth, random_state=0)
    theirs.fit(x, y)
    # in later stages some nodes have several equally good splits, of which either draws its own
    np.testing.assert_allclose(ours.importance, theirs.feature_importances_, atol=tolerance)
    assert np.mean(ours.predictions == theirs.predict(x)) > 0.99
    assert np.mean(ours.test_predictions == theirs.predict(test_x)) > 0.99


def test_histogram_boosting_with_its_defaults_is_that_of_scikit_learn(rng):
    labels = rng.integers(0, 3, size=400)
    features = np.stack([labels + rng.integers(0, s, size=400) for s in (3, 9, 30)], axis=1)
    ours = fit_histogram_boosting(features, labels, features)
    theirs = GradientBoostingClassifier(random_state=0).fit(features, labels)
    np.testing.assert_allclose(ours.importance, theirs.feature_importances_, atol=0.01)
    assert np.mean(ours.predictions == theirs.predict(features)) > 0.98


def test_many_values_do_not_overflow(rng):
    """Single precision did: the steps of some leaves are larger than 1e38 here."""
    labels = np.unique(rng.integers(0, 183, size=1_200), return_inverse=True)[1]
    features = rng.integers(0, 32, size=(1_200, 2))
    result = fit_histogram_boosting(features, labels, features)
    assert result.importance.sum() == pytest.approx(1)
    assert (result.importance > 0.2).all()
    assert np.mean(result.predictions == labels) > 0.5


def test_newton_steps_are_those_of_scikit_learn():
    # two classes, one point in each leaf but the third, which is empty
    targets = np.array([[True, True, False], [False, False, True]])
    residuals = np.array([[0.5, 1.0, -1e-100], [-0.5, -1.0, 1e-100]])
    nodes = np.array([[0, 1, 1], [0, 1, 3]], dtype=np.uint8)
    steps = _newton_steps(residuals, targets, nodes, leaves=4)
    # ½ ΣR / Σp(1 − p): beside a residual of ±1 there is no curvature, whatever p is
    np.testing.assert_allclose(steps, [[1, 0.5e100, 0, 0], [-1, 0, 0, 0]])


def test_blocks_of_points_change_nothing(rng, monkeypatch):
    features, labels = rng.integers(0, 30, size=(500, 3)), rng.integers(0, 3, size=500)
    whole = fit_histogram_boosting(features, labels, features, stages=5)
    monkeypatch.setattr("disentangle.metrics.histogram_boosting.BLOCK", 64)
    parts = fit_histogram_boosting(features, labels, features, stages=5)
    np.testing.assert_allclose(parts.importance, whole.importance, rtol=1e-5)


def test_bins_are_equally_full_and_mirrored(rng):
    x = rng.permuted(np.tile(np.arange(1_000, dtype=np.float32), (3, 1)), axis=1).T / 7
    numbers, test_numbers = quantile_bins(x, x[::-1], bins=8)
    np.testing.assert_array_equal(numbers, test_numbers[::-1])
    for column, values in zip(numbers.T, x.T, strict=True):
        np.testing.assert_array_equal(np.bincount(column), 125)
        assert (np.diff(column[np.argsort(values)]) >= 0).all()
    mirrored, _ = quantile_bins(-x, x, bins=7)
    np.testing.assert_array_equal(6 - mirrored, quantile_bins(x, x, bins=7)[0])


def test_bins_end_between_clusters(rng):
    clusters = rng.integers(0, 7, size=1_000)
    x = (clusters + 0.02 * rng.normal(size=1_000))[:, None]
    numbers, _ = quantile_bins(x, x, bins=16)
    for number in range(16):
        assert len(np.unique(clusters[numbers.ravel() == number])) <= 1
    mirrored, _ = quantile_bins(-x, x, bins=16)
    np.testing.assert_array_equal(numbers.max() - mirrored, numbers)


def test_histograms_do_not_blur_clusters(rng):
    factors = rng.integers(0, [3, 4], size=(600, 2))
    codes = factors + 0.1 * rng.normal(size=factors.shape)
    result = histogram_dci(*split(codes, factors, 400))
    assert result.score > 0.99
    assert result.completeness > 0.99
    assert result.informativeness > 0.99


def test_few_values_have_a_bin_each_and_test_values_fall_into_them():
    x = np.array([5.0, -1.0, 5.0, 2.0, 5.0, 5.0])[:, None]
    numbers, test_numbers = quantile_bins(x, np.array([-9.0, 1.9, 2.0, 4.0, 99.0])[:, None], bins=3)
    np.testing.assert_array_equal(numbers.ravel(), [2, 0, 2, 1, 2, 2])
    np.testing.assert_array_equal(test_numbers.ravel(), [0, 0, 1, 1, 2])
    # more values than bins, and more than half of the points share one
    y = np.concatenate([np.zeros(60), np.arange(1, 41)])[:, None]
    numbers, _ = quantile_bins(y, y, bins=4)
    np.testing.assert_array_equal(np.unique(numbers, return_counts=True)[1], [60, 15, 25])


GOOD = np.random.default_rng(1).normal(size=(60, 3))
FACTORS = np.random.default_rng(1).integers(0, 3, size=(60, 2))
SPLIT = split(GOOD, FACTORS, 40)
BAD = [
    ((GOOD[:, 0], FACTORS, GOOD, FACTORS), r"shape \(N, K\) with K ≥ 1, got \(60,\)"),
    ((GOOD[:50], FACTORS, GOOD, FACTORS), "same number of points, got 50 codes and 60 factors"),
    ((GOOD, FACTORS, GOOD[:50], FACTORS), "same number of points, got 50 codes and 60 factors"),
    ((GOOD, FACTORS, GOOD[:, :2], FACTORS), "same number of columns, got 3 and 2"),
    ((GOOD, FACTORS, GOOD, FACTORS[:, :1]), "same number of columns, got 2 and 1"),
    ((GOOD, FACTORS.astype(float), GOOD, FACTORS), "factors must be integers, got float64"),
    ((GOOD * np.nan, FACTORS, GOOD, FACTORS), "codes must be finite"),
    ((GOOD, FACTORS, GOOD * np.inf, FACTORS), "codes must be finite"),
    ((GOOD, 0 * FACTORS, GOOD, FACTORS), "at least one factor must take two values or more"),
    ((GOOD[:1], FACTORS[:1], GOOD, FACTORS), "at least 2 points are needed, got 1"),
]


@pytest.mark.parametrize(
    ("metric", "data", "message"),
    [(metric, *case) for metric, case in itertools.product((dci, histogram_dci), BAD)],
)
def test_bad_input_is_refused(metric, data, message):
    with pytest.raises(ValueError, match=message):
        metric(*data)


def test_as_many_bins_as_a_factor_has_values(rng):
    factors = rng.integers(0, [3, 40], size=(600, 2))
    data = split(factors + 0.05 * rng.normal(size=factors.shape), factors, 400)
    result = histogram_dci(*data)
    assert result.estimator == "histogram boosting, 40 bins"
    assert result.score > histogram_dci(*data, bins=16).score + 0.05


def test_more_codes_than_points_are_refused_where_they_take_minutes(rng):
    factors = rng.integers(0, [2, 40], size=(100, 2))
    codes = rng.normal(size=(100, 3_000))
    with pytest.raises(ValueError, match=r"3,000 codes and 100 points: score fewer codes, such as"):
        dci(codes, factors, codes, factors)
    assert dci(codes[:40, :50], factors[:40, :1], codes[:40, :50], factors[:40, :1]).score == 1


def test_codes_beyond_single_precision_are_refused():
    with pytest.raises(ValueError, match=r"codes must be at most 3.4e\+38 in size, got"):
        dci(1e39 * GOOD, FACTORS, GOOD, FACTORS)


@pytest.mark.parametrize(("bins", "message"), [(1, "at least 2, got 1"), (257, "at most 256")])
def test_bad_bins_are_refused(bins, message):
    with pytest.raises(ValueError, match=message):
        histogram_dci(*SPLIT, bins=bins)
