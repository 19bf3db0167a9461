import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler

from disentangle.metrics.udr import udr


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rotate(codes, angle):
    return codes @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]


def reference_similarity(first, second, method, alpha):
    """Of the codes of two runs, pair by pair or by scikit-learn."""
    if method == "spearman":
        return np.array([[abs(spearmanr(a, b)[0]) for b in second.T] for a in first.T])
    model = Lasso(alpha=alpha, tol=1e-12, max_iter=100_000).fit(first, second)
    return np.abs(np.atleast_2d(model.coef_).T)


def reference_udr(runs, kl, method, alpha=0.1, threshold=0.01):
    """The published protocol, one pair of runs at a time."""
    runs = [StandardScaler().fit_transform(run) for run in runs]
    active = [divergence > threshold for divergence in kl]
    pairwise = np.zeros((len(runs), len(runs)))
    for i, first in enumerate(runs):
        for j, second in enumerate(runs):
            if i != j:
                s = reference_similarity(first * active[i], second * active[j], method, alpha)
                s = s[active[i]][:, active[j]]
                columns = np.nan_to_num(s.max(axis=0) ** 2 / s.sum(axis=0))
                rows = np.nan_to_num(s.max(axis=1) ** 2 / s.sum(axis=1))
                pairwise[i, j] = (columns.mean() + rows.mean()) / 2
    return [np.median(np.delete(pairwise[:, j], j)) for j in range(len(runs))], pairwise


@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_is_the_published_protocol(rng, method):
    z = rng.normal(size=(400, 4))
    runs = [z @ rng.normal(size=(4, 5)) + 0.3 * rng.normal(size=(400, 5)) for _ in range(4)]
    kl = [rng.uniform(0, 0.05, size=5) for _ in range(4)]
    assert any((divergence <= 0.01).any() for divergence in kl)
    result = udr(runs, kl=kl, method=method)
    per_run, pairwise = reference_udr(runs, kl, method)
    np.testing.assert_allclose(np.nan_to_num(result.pairwise), pairwise, atol=1e-6)
    np.testing.assert_allclose(result.per_run, per_run, atol=1e-6)
    assert result.score == pytest.approx(np.mean(per_run), abs=1e-6)
    np.testing.assert_array_equal(result.informative_codes, np.array(kl) > 0.01)
    assert np.isnan(np.diag(result.pairwise)).all()


@given(
    seed=st.integers(0, 1_000),
    count=st.integers(1, 6),
    noise=st.sampled_from([0.0, 1e-8, 1e-3, 0.1, 1.0]),
    alpha=st.sampled_from([0.001, 0.1, 0.5]),
)
@settings(derandomize=True, deadline=None, max_examples=200)
def test_the_lasso_is_minimal(seed, count, noise, alpha):
    """Also where the codes of a run are nearly or exactly collinear."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(40, 2))
    runs = [
        z @ rng.normal(size=(2, count)) + noise * rng.normal(size=(40, count)) for _ in range(2)
    ]
    x, y = (StandardScaler().fit_transform(run) for run in runs)
    sizes = udr(runs, alpha=alpha).similarity[0, 1]  # (K, K'): without signs, which the data tell
    for size, target in zip(sizes.T, y.T, strict=True):
        assert has_subgradient_zero(x, target, size, alpha)


def has_subgradient_zero(x, y, size, alpha):
    """Whether coefficients of these sizes, with some signs, are a minimum of the Lasso."""
    used = np.flatnonzero(size)
    for signs in itertools.product([-1, 1], repeat=len(used)):
        w = np.zeros(len(size))
        w[used] = size[used] * signs
        slopes = x.T @ (y - x @ w) / len(x)
        flat = np.abs(slopes[used] - alpha * np.array(signs)).max(initial=0) < 1e-8
        if flat and np.abs(slopes).max() < alpha + 1e-8:
            return True
    return False


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_runs_that_agree_get_the_largest_score(rng, method):
    z = rng.uniform(size=(2_000, 3))
    runs = [z, -z[:, [2, 0, 1]], 5 * z + 1]
    result = udr(runs, method=method)
    np.testing.assert_array_equal(result.similarity[0, 1].argmax(axis=0), [2, 0, 1])
    if method == "lasso":
        np.testing.assert_allclose(result.per_run, 0.9, atol=1e-3)
    else:  # it does not shrink the small correlations of the three codes
        assert (result.per_run > 0.92).all()


def test_uncorrelated_runs_that_agree_reach_the_bound():
    grid = np.stack(np.meshgrid(np.arange(6.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    runs = [grid, -grid[:, ::-1]]
    assert udr(runs).score == pytest.approx(0.9, abs=1e-9)
    assert udr(runs, alpha=0.3).score == pytest.approx(0.7, abs=1e-9)
    assert udr(runs, method="spearman").score == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_the_rotated_run_ranks_last(rng, method):
    z = rng.uniform(size=(2_000, 2))
    result = udr([z, z[:, ::-1], -z, rotate(z, np.pi / 4)], method=method)
    assert result.per_run.argmin() == 3
    assert result.per_run[3] < result.per_run[:3].min() - 0.2


def test_codes_that_are_not_informative_cost_nothing(rng):
    runs = rng.normal(size=(2, 100, 2_000))
    kl = np.zeros((2, 2_000))
    kl[:, [3, 1_500]] = 1
    start = time.process_time()
    result = udr(runs, kl=kl)
    assert time.process_time() - start < 5
    few = udr(runs[:, :, [3, 1_500]])
    assert result.per_run == pytest.approx(few.per_run, abs=1e-12)
    assert not np.delete(result.similarity[0, 1], [3, 1_500], axis=0).any()


def test_more_codes_than_points(rng):
    runs = rng.normal(size=(2, 30, 60))
    ours = udr(runs).similarity[0, 1]
    x, y = (StandardScaler().fit_transform(run) for run in runs)
    model = Lasso(alpha=0.1, tol=1e-12, max_iter=100_000, fit_intercept=False).fit(x, y)
    np.testing.assert_allclose(ours, np.abs(model.coef_.T), atol=1e-6)


def test_noise_gets_almost_nothing(rng):
    runs = rng.normal(size=(3, 2_000, 4))
    assert udr(runs).score == 0
    assert udr(runs, method="spearman").score < 0.05


def test_runs_that_share_their_entanglement_look_fine(rng):
    z = rotate(rng.uniform(size=(2_000, 2)), 0.6)
    assert udr([z, z, z]).score == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_constant_codes_are_left_out(rng, method):
    z = rng.uniform(size=(500, 2))
    constants = np.full((500, 1), 0.1)  # whose variance may be rounding, not 0
    runs = [z, rotate(z, 0.2), rotate(z, 0.4)]
    wide = [np.hstack([run[:, :1], constants, run[:, 1:]]) for run in runs]
    result = udr(wide, method=method)
    assert result.score == pytest.approx(udr(runs, method=method).score, abs=1e-9)
    np.testing.assert_array_equal(result.informative_codes, [[True, False, True]] * 3)
    assert not result.similarity[0, 1, 1].any()
    assert not result.similarity[0, 1, :, 1].any()


def test_a_run_without_informative_codes_gets_zero(rng):
    z = rng.uniform(size=(500, 2))
    result = udr([z, z, 0 * z])
    np.testing.assert_allclose(result.per_run[2], 0)
    # the median of one run that agrees and one that does not
    np.testing.assert_allclose(result.per_run[:2], 0.45, atol=0.01)
    assert udr([z, z], kl=[[1.0, 1.0], [0.0, 0.01]]).score == 0


def test_the_threshold_decides_which_codes_count(rng):
    z = rng.uniform(size=(500, 3))
    kl = np.array([[1.0, 0.2, 0.05]] * 2)
    for threshold, count in ((0.01, 3), (0.05, 2), (0.5, 1)):
        result = udr([z, z], kl=kl, kl_threshold=threshold)
        np.testing.assert_array_equal(result.informative_codes.sum(axis=1), count)
        assert result.score == pytest.approx(udr([z[:, :count]] * 2).score, abs=1e-12)


def test_one_code_is_enough(rng):
    z = rng.uniform(size=(100, 1))
    assert udr([z, -z]).score == pytest.approx(0.9)
    assert udr([z, np.exp(z)], method="spearman").score == pytest.approx(1)


@pytest.mark.parametrize("method", ["lasso", "spearman"])
def test_order_sign_and_scale_do_not_matter(rng, method):
    z = rng.uniform(size=(500, 3))
    runs = np.stack([z @ rng.normal(size=(3, 3)) for _ in range(3)])
    result = udr(runs, method=method)
    points = rng.permutation(500)
    moved = udr([run[points, ::-1] * [-1, 10, 0.1] + 3 for run in runs[::-1]], method=method)
    np.testing.assert_allclose(moved.per_run[::-1], result.per_run, atol=1e-6)


def test_tensors_give_what_arrays_give(rng):
    runs = rng.normal(size=(2, 100, 3)).astype(np.float32)
    kl = rng.uniform(size=(2, 3)).astype(np.float32)
    ours = udr(list(torch.from_numpy(runs)), kl=torch.from_numpy(kl).requires_grad_())
    assert ours.score == udr(runs, kl=kl).score


GOOD = np.random.default_rng(1).normal(size=(3, 100, 2))


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        (GOOD[:1], {}, "the number of runs must be at least 2, got 1"),
        (GOOD[0], {}, r"codes must have the shape \(N, K\)"),
        ([GOOD[0], GOOD[1][:, :1]], {}, r"codes of one shape \(N, K\), got .*\(100, 1\)"),
        ([GOOD[0], GOOD[1][:50]], {}, r"codes of one shape \(N, K\), got .*\(50, 2\)"),
        (GOOD[:, :1], {}, "the number of points must be at least 2, got 1"),
        (GOOD * np.nan, {}, "codes must be finite"),
        (GOOD, {"kl": np.ones((2, 2))}, r"kl must have the shape \(3, 2\)"),
        (GOOD, {"kl": np.ones((3, 3))}, r"kl must have the shape \(3, 2\)"),
        (GOOD, {"kl": np.full((3, 2), np.nan)}, "kl must be finite"),
        (GOOD, {"method": "pearson"}, "method must be 'lasso' or 'spearman', got 'pearson'"),
        (GOOD, {"alpha": 0.0}, "alpha must be positive and finite, got 0.0"),
    ],
)
def test_bad_input_is_refused(codes, options, message):
    with pytest.raises(ValueError, match=message):
        udr(codes, **options)
