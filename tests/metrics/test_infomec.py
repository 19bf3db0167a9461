import warnings

import numpy as np
import pytest
import torch
from scipy.special import digamma
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, mutual_info_score
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from disentangle.metrics.infomec import infomec
from disentangle.metrics.knn_information import knn_information


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noisy(rng, sizes, points=1_000, noise=0.3, extra=2):
    """Noisy copies of the factors beside noise."""
    factors = rng.integers(0, sizes, size=(points, len(sizes)))
    codes = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    codes = codes + noise * rng.normal(size=codes.shape)
    return np.concatenate([codes, rng.normal(size=(points, extra))], axis=1), factors


def reference_loss(inputs, labels):
    model = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-4, max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return log_loss(labels, model.fit(inputs, labels).predict_proba(inputs))


def reference_infomec(codes, factors, discrete):
    """The authors' protocol, one pair at a time; a regression on a constant for the null."""
    n_codes, n_factors = codes.shape[1], factors.shape[1]
    nmi = np.zeros((n_factors, n_codes))
    for i, j in np.ndindex(nmi.shape):
        x, y = codes[:, j], factors[:, i]
        if discrete:
            information = mutual_info_score(y, np.unique(x, return_inverse=True)[1])
        else:
            x = StandardScaler().fit_transform(x[:, None])
            (information,) = mutual_info_classif(x, y, n_neighbors=10, random_state=0)
        nmi[i, j] = information / mutual_info_score(y, y)
    ranges = codes.max(axis=0) - codes.min(axis=0)
    active = ranges > 0 if discrete else ranges > ranges.max() / 20
    pruned = nmi[:, active]
    infom = np.mean(np.max(pruned, axis=0) / np.sum(pruned, axis=0))
    infoc = np.mean(np.max(pruned, axis=1) / np.sum(pruned, axis=1))
    encoder = OneHotEncoder() if discrete else StandardScaler()
    inputs = encoder.fit_transform(codes)
    gains = []
    for y in factors.T:
        null = reference_loss(np.zeros(codes.shape), y)
        gains.append((null - reference_loss(inputs, y)) / null)
    infom = (infom - 1 / n_factors) / (1 - 1 / n_factors)
    infoc = (infoc - 1 / active.sum()) / (1 - 1 / active.sum())
    return nmi.T, active, infom, np.mean(gains), infoc


@pytest.mark.parametrize("discrete", [False, True])
def test_is_the_published_protocol(rng, discrete):
    codes, factors = noisy(rng, [3, 2, 5])
    if discrete:
        codes = codes.round()
    codes[:, -1] *= 0.01  # inactive, but for its being discrete
    result = infomec(codes, factors, discrete_codes=discrete)
    nmi, active, infom, infoe, infoc = reference_infomec(codes, factors, discrete)
    np.testing.assert_allclose(result.normalised_information, nmi, atol=1e-12)
    np.testing.assert_array_equal(result.active_codes, active)
    assert active.tolist() == [True] * 4 + [discrete]
    assert result.score == pytest.approx(infom, abs=1e-12)
    assert result.infoc == pytest.approx(infoc, abs=1e-12)
    assert result.infoe == pytest.approx(infoe, abs=1e-6)
    assert 0.2 < infom < 0.99
    assert 0.2 < infoe < 0.99


@pytest.mark.parametrize("discrete", [False, True])
def test_perfect_codes_get_one(rng, discrete):
    factors = rng.integers(0, [3, 2, 4], size=(3_000, 3))
    result = infomec(factors[:, [1, 2, 0]] * [-1.0, 3.0, 2.0], factors, discrete_codes=discrete)
    assert result.score == pytest.approx(1, abs=0.02)
    assert result.infoc == pytest.approx(1, abs=0.02)
    assert result.infoe == pytest.approx(1, abs=0.01)
    expected = np.eye(3)[[1, 2, 0]]
    np.testing.assert_allclose(result.normalised_information, expected, atol=0.02)


def test_duplicated_codes_are_modular_and_not_compact(rng):
    factors = rng.integers(0, [3, 2], size=(2_000, 2))
    result = infomec(np.concatenate([factors, -factors], axis=1), factors)
    assert result.score == pytest.approx(1, abs=0.02)
    # two of four codes share each factor: (1/2 − 1/4) / (1 − 1/4)
    assert result.infoc == pytest.approx(1 / 3, abs=0.02)
    assert result.infoe == pytest.approx(1, abs=0.01)


def test_a_code_for_all_factors_is_compact_and_not_modular(rng):
    factors = rng.integers(0, [3, 3], size=(2_000, 2))
    both = factors @ [[1.0], [3.0]]
    result = infomec(both, factors)
    assert result.score == pytest.approx(0, abs=0.02)
    assert result.infoc == 1  # one active code
    discrete = infomec(both, factors, discrete_codes=True)
    assert discrete.score == pytest.approx(0, abs=0.02)
    assert discrete.infoe == pytest.approx(1, abs=0.01)
    assert result.infoe < 0.8  # the first factor is not linear in the code


def test_noise_is_not_explicit_and_constants_have_no_scores(rng):
    factors = rng.integers(0, [3, 2], size=(1_000, 2))
    noise = infomec(rng.normal(size=(1_000, 4)), factors)
    assert noise.infoe < 0.02
    assert noise.normalised_information.max() < 0.1
    for discrete in (False, True):
        constant = infomec(np.ones((1_000, 3)), factors, discrete_codes=discrete)
        assert (constant.score, constant.infoc) == (0, 0)
        assert constant.infoe == pytest.approx(0, abs=1e-6)
        assert not constant.normalised_information.any()
        assert not constant.active_codes.any()


@pytest.mark.filterwarnings("error")
def test_constant_codes_beside_others_change_nothing(rng):
    codes, factors = noisy(rng, [3, 2])
    more = infomec(np.insert(codes, 1, 0.1, axis=1), factors)
    result = infomec(codes, factors)
    assert not more.normalised_information[1].any()
    assert (more.score, more.infoc) == (result.score, result.infoc)
    assert more.infoe == pytest.approx(result.infoe, abs=1e-6)


def test_pruning_looks_at_the_share_of_the_largest_range(rng):
    codes, factors = noisy(rng, [3, 2], extra=1)
    scaled = codes / np.ptp(codes, axis=0) * [1.0, 0.06, 0.04]
    assert infomec(scaled, factors).active_codes.tolist() == [True, True, False]
    assert infomec(scaled, factors, prune_below=0.03).active_codes.all()
    pruned, kept = infomec(scaled, factors), infomec(scaled[:, :2], factors)
    assert (pruned.score, pruned.infoc) == (kept.score, kept.infoc)
    assert infomec(scaled, factors, discrete_codes=True).active_codes.all()


def test_one_factor_and_one_code(rng):
    factors = rng.integers(0, 3, size=(500, 1))
    result = infomec(factors, factors)
    assert (result.score, result.infoc) == (1, 1)
    constant = infomec(0 * factors, factors)
    assert (constant.score, constant.infoc) == (0, 0)


def test_codes_and_factors_without_information_are_left_out_of_the_means(rng):
    factors = np.stack(np.meshgrid(range(3), range(3), range(30), indexing="ij")).reshape(3, -1).T
    # exactly independent columns: the plug-in estimate of the information is exactly 0
    codes = factors[:, [0, 2]]
    result = infomec(codes, factors[:, :2], discrete_codes=True)
    np.testing.assert_allclose(result.normalised_information, [[1, 0], [0, 0]], atol=1e-12)
    assert result.score == pytest.approx(1, abs=1e-12)
    assert result.infoc == pytest.approx(1, abs=1e-12)
    assert result.infoe == pytest.approx(0.5, abs=0.01)


def test_a_factor_with_one_value_is_left_out_and_reported(rng):
    codes, factors = noisy(rng, [3, 2])
    result = infomec(codes, np.insert(factors, 1, 5, axis=1))
    kept = infomec(codes, factors)
    assert result.excluded_factors == (1,)
    assert (result.score, result.infoe, result.infoc) == (kept.score, kept.infoe, kept.infoc)
    for values in (result.normalised_information[0], result.infoe_per_factor):
        np.testing.assert_array_equal(np.isnan(values), [False, True, False])
    assert not result.converged[1]


def test_convergence_is_reported(rng):
    factors = rng.integers(0, [2, 40], size=(1_000, 2))
    codes = factors @ rng.normal(size=(2, 6)) + rng.normal(size=(1_000, 6))
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        result = infomec(codes, factors)
    assert not raised
    assert result.converged.tolist() == [True, False]
    assert infomec(rng.normal(size=(1_000, 3)), factors).converged.all()


def test_workers_do_not_matter(rng):
    codes, factors = noisy(rng, [3, 2, 5])
    one, three = (infomec(codes, factors, workers=w) for w in (1, 3))
    np.testing.assert_array_equal(one.infoe_per_factor, three.infoe_per_factor)
    np.testing.assert_array_equal(one.normalised_information, three.normalised_information)


def test_order_and_sign_do_not_matter(rng):
    codes, factors = noisy(rng, [3, 2, 4])
    expected = infomec(codes, factors)
    points = rng.permutation(len(codes))
    for name, (x, y) in {
        "points": (codes[points], factors[points]),
        "codes": (codes[:, ::-1], factors),
        "factors": (codes, factors[:, ::-1]),
        "sign": (-codes, factors),
        "labels": (codes, 9 - 2 * factors),
    }.items():
        result = infomec(x, y)
        assert result.score == pytest.approx(expected.score, abs=1e-6), name
        assert result.infoc == pytest.approx(expected.infoc, abs=1e-6), name
        assert result.infoe == pytest.approx(expected.infoe, abs=1e-3), name


def test_tensors_give_what_arrays_give(rng):
    codes, factors = noisy(rng, [3, 2], points=200)
    tensor = torch.from_numpy(codes).requires_grad_()
    assert infomec(tensor, torch.from_numpy(factors)).score == infomec(codes, factors).score


GOOD = np.random.default_rng(1).normal(size=(100, 3))
FACTORS = np.random.default_rng(1).integers(0, 4, size=(100, 2))


@pytest.mark.parametrize(
    ("codes", "factors", "options", "message"),
    [
        (GOOD[:, 0], FACTORS, {}, r"shape \(N, K\) with K ≥ 1, got \(100,\)"),
        (GOOD[:90], FACTORS, {}, "same number of points, got 90 codes and 100 factors"),
        (GOOD[:10], FACTORS[:10], {}, "at least 11 points are needed, got 10"),
        (GOOD, FACTORS.astype(float), {}, "factors must be integers, got float64"),
        (GOOD * np.nan, FACTORS, {}, "codes must be finite"),
        (GOOD, 0 * FACTORS, {}, "at least one factor must take two values or more"),
        (GOOD, FACTORS, {"neighbours": 0}, "neighbours must be at least 1, got 0"),
        (GOOD, FACTORS, {"prune_below": 1.0}, r"prune_below must be in \[0, 1\), got 1.0"),
        (GOOD, FACTORS, {"prune_below": -0.1}, r"prune_below must be in \[0, 1\), got -0.1"),
        (
            GOOD,
            np.stack([FACTORS[:, 0], 7 + 0 * FACTORS[:, 0], np.arange(100)], axis=1),
            {},
            "two points must share a value .* 100 different values of factor 2",
        ),
    ],
)
def test_bad_input_is_refused(codes, factors, options, message):
    with pytest.raises(ValueError, match=message):
        infomec(codes, factors, **options)


@pytest.mark.parametrize("neighbours", [1, 3, 10])
@pytest.mark.parametrize("seed", [0, 7])
def test_knn_information_is_that_of_scikit_learn(rng, neighbours, seed):
    codes, factors = noisy(rng, [3, 12, 2])
    codes = np.concatenate([codes, codes.round(1), factors, 1e6 + 1e-3 * codes], axis=1)
    ours = knn_information(codes, factors, neighbours=neighbours, seed=seed)
    theirs = [
        [
            mutual_info_classif(
                StandardScaler().fit_transform(x[:, None]),
                y,
                n_neighbors=neighbours,
                random_state=seed,
            )[0]
            for y in factors.T
        ]
        for x in codes.T
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def knn_one_point_at_a_time(code, labels, neighbours):
    """Ross 2014, from all distances."""
    kept = [i for i in range(len(code)) if (labels == labels[i]).sum() > 1]
    code, labels, terms = code[kept], labels[kept], []
    for i in range(len(code)):
        distances = np.abs(code - code[i])
        same = np.sort(distances[labels == labels[i]])[1:]  # without the point itself
        k = min(neighbours, len(same))
        nearer = (distances < same[k - 1]).sum()
        terms.append(digamma(k) - digamma(len(same) + 1) - digamma(nearer))
    return max(0.0, digamma(len(code)) + np.mean(terms))


@pytest.mark.parametrize("points", [12, 60, 200])
def test_knn_information_of_few_points_per_label(rng, points):
    """Where scikit-learn takes another route, and some points are the only ones of their label."""
    labels = rng.integers(0, points // 4, size=points)
    codes = labels + 3 * rng.normal(size=points)
    ours = knn_information(codes[:, None], labels[:, None], neighbours=10, seed=0)[0, 0]
    assert ours == pytest.approx(knn_one_point_at_a_time(codes, labels, 10), abs=1e-9)


def test_knn_information_of_a_code_that_varies_in_its_last_bit(rng):
    labels = rng.integers(0, 2, size=(400, 1))
    codes = np.where(labels == 0, 1e8, np.nextafter(1e8, 2e8))
    codes = np.concatenate([codes, np.full((400, 1), 0.1)], axis=1)
    information = knn_information(codes, labels, neighbours=10, seed=0)
    assert information[0, 0] == pytest.approx(np.log(2), abs=0.01)
    assert information[1, 0] == 0
