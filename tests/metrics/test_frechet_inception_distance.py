import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.fid import FrechetInceptionDistance

from disentangle.metrics.feature_networks import (
    random_features,
)
from disentangle.metrics.features import (
    FeatureOrigin,
    Features,
    extract_features,
)
from disentangle.metrics.frechet_inception_distance import (
    FeatureMoments,
    bures_distance,
    frechet_inception_distance,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def with_moments(rng, points, mean, root):
    """Points whose sample mean and unbiased covariance are exactly `mean` and `root rootᵀ`."""
    x = rng.normal(size=(points, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ root.T + mean


class Identity(torch.nn.Module):
    """The network for torchmetrics: its images are the features."""

    def __init__(self, dim):
        super().__init__()
        self.num_features = dim

    def forward(self, x):
        return x


def test_commuting_covariances_have_the_closed_form(rng):
    stds, others = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 2.0, 0.1, 1.0])
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    mean = np.array([1.0, -2.0, 0.0, 0.5])
    x = with_moments(rng, 300, 0 * mean, rotation * stds)
    y = with_moments(rng, 200, mean, rotation * others)
    result = frechet_inception_distance(x, y)
    assert result.mean_term == pytest.approx((mean**2).sum(), rel=1e-10)
    assert result.covariance_term == pytest.approx(((stds - others) ** 2).sum(), rel=1e-10)
    assert result.score == result.mean_term + result.covariance_term
    assert result.points == (300, 200)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 12))
def test_is_the_formula_with_scipys_square_root(seed, dim):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(60, dim)), rng.normal(size=(70, dim)) @ rng.normal(size=(dim, dim))
    a, b = np.cov(x.T).reshape(dim, dim), np.cov(y.T).reshape(dim, dim)
    root = scipy.linalg.sqrtm(a @ b)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(a + b - 2 * root.real)
    assert frechet_inception_distance(x, y).score == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_is_the_value_of_torchmetrics(rng):
    x = rng.normal(size=(150, 16)).astype(np.float32)
    y = (rng.normal(size=(120, 16)) ** 3).astype(np.float32)
    theirs = FrechetInceptionDistance(feature=Identity(16)).set_dtype(torch.float64)
    theirs.update(torch.from_numpy(x), real=False)
    theirs.update(torch.from_numpy(y), real=True)
    expected = theirs.compute().item()
    assert frechet_inception_distance(x, y).score == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("points", [3, 40, 400])
def test_a_set_has_no_distance_from_itself(rng, points):
    # with few points the covariances are singular
    x = 100 * rng.normal(size=(points, 64)) + 1000
    assert frechet_inception_distance(x, x).score == pytest.approx(0, abs=1e-8)
    assert frechet_inception_distance(x, x[::-1]).score == pytest.approx(0, abs=1e-8)


def test_singular_covariances_lose_no_digits(rng):
    # two lines at an angle: covariances u uᵀ and v vᵀ have the distance 2 − 2 |uᵀv|
    u, v = np.array([[1.0, 0.0], [0.6, 0.8]])
    assert bures_distance(np.outer(u, u), np.outer(v, v)) == pytest.approx(0.8, abs=1e-12)
    # fewer points than features; the singular values of the data have the answer
    x, y = rng.normal(size=(2, 20, 64))
    a, b = (z - z.mean(axis=0) for z in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    expected = (np.square(a).sum() + np.square(b).sum() - 2 * cross) / 19
    ours = frechet_inception_distance(x, y).covariance_term
    assert ours == pytest.approx(expected, rel=1e-12)


def test_invariances(rng):
    x, y = rng.normal(size=(80, 6)), rng.normal(size=(90, 6)) * 2 + 1
    score = frechet_inception_distance(x, y).score
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert frechet_inception_distance(y, x).score == pytest.approx(score, rel=1e-10)
    assert frechet_inception_distance(x[::-1], y).score == pytest.approx(score, rel=1e-10)
    moved = frechet_inception_distance(x @ rotation + 5, y @ rotation + 5)
    assert moved.score == pytest.approx(score, rel=1e-10)
    assert frechet_inception_distance(3 * x, 3 * y).score == pytest.approx(9 * score, rel=1e-10)


def test_fewer_points_give_a_larger_distance(rng):
    x = rng.normal(size=(4_000, 20))
    scores = [frechet_inception_distance(x[:n], x[-n:]).score for n in (30, 200, 2_000)]
    assert scores[0] > 2 * scores[1] > 4 * scores[2] > 0


@settings(derandomize=True, deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(1, 99), unique=True, max_size=6), offset=st.floats(-1e6, 1e6))
def test_moments_of_batches_are_those_of_all_points(cuts, offset):
    x = np.random.default_rng(0).normal(size=(100, 4)) + offset
    parts = [FeatureMoments.of(part) for part in np.split(x, sorted(cuts))]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    assert merged.count == 100
    np.testing.assert_allclose(merged.mean, x.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(x.T), rtol=1e-6, atol=1e-8)


def test_single_precision_features_with_a_large_mean_lose_nothing(rng):
    # sums of squares in single precision would leave a covariance of nothing but rounding
    x = (rng.normal(size=(1_000, 3)) + 1e4).astype(np.float32)
    moments = FeatureMoments.of(x[:1]).merge(FeatureMoments.of(torch.from_numpy(x[1:])))
    np.testing.assert_allclose(moments.covariance, np.cov(x.T.astype(np.float64)), rtol=1e-10)


def test_images_one_batch_at_a_time(rng):
    network = random_features(dim=12)
    images = torch.rand(50, 3, 16, 16) * 2 - 1
    moments = FeatureMoments.of_images(network, images.split(7), keep=40)
    expected = FeatureMoments.of(extract_features(network, [images[:40]]))
    assert moments.count == 40
    assert moments.origin == expected.origin
    np.testing.assert_allclose(moments.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(moments.scatter, expected.scatter, rtol=1e-4, atol=1e-7)
    result = frechet_inception_distance(moments, extract_features(network, [images[:40]]))
    assert result.score == pytest.approx(0, abs=1e-6)
    assert result.features == "random (seed 0)"
    assert result.caveat == "random features, not comparable with published values"


def test_random_features_tell_images_apart():
    network = random_features()
    noise, more_noise = torch.rand(2, 200, 1, 16, 16) * 2 - 1
    smooth = torch.nn.functional.avg_pool2d(more_noise, 3, 1, 1)
    moments = [FeatureMoments.of_images(network, [x]) for x in (noise, more_noise, smooth)]
    same = frechet_inception_distance(moments[0], moments[1]).score
    assert frechet_inception_distance(moments[0], moments[2]).score > 10 * same


def test_images_of_another_size_are_refused():
    network = random_features()
    small, large = (FeatureMoments.of_images(network, [torch.rand(5, 3, s, s)]) for s in (16, 32))
    with pytest.raises(ValueError, match=r"got \(3, 16, 16\) and \(3, 32, 32\)"):
        frechet_inception_distance(small, large)
    grey = FeatureMoments.of_images(network, [torch.rand(5, 1, 16, 16)])
    with pytest.raises(ValueError, match=r"got \(3, 16, 16\) and \(1, 16, 16\)"):
        frechet_inception_distance(small, grey)


def test_features_of_another_network_are_refused(rng):
    x = rng.normal(size=(20, 3))
    named = Features(x, FeatureOrigin("Inception", caveat=""))
    with pytest.raises(ValueError, match="same network, got 'Inception' and 'unnamed'"):
        frechet_inception_distance(named, x)
    result = frechet_inception_distance(named, named)
    assert (result.features, result.caveat) == ("Inception", "")


GOOD = np.random.default_rng(1).normal(size=(10, 3))


@pytest.mark.parametrize(
    ("features", "reference", "message"),
    [
        (GOOD[0], GOOD, r"features must have the shape \(N, D\), got \(3,\)"),
        (GOOD, GOOD[:0], r"features must have the shape \(N, D\), got \(0, 3\)"),
        (GOOD, GOOD[:, :2], "same number of features, got 3 and 2"),
        (GOOD[:1], GOOD, "a covariance needs at least 2 points, got 1"),
        (GOOD.astype(complex), GOOD, "features must be real numbers, got complex128"),
        (np.where(GOOD > 1, np.nan, GOOD), GOOD, "features must be finite, got . NaN or infinite"),
    ],
)
def test_bad_input_is_refused(features, reference, message):
    with pytest.raises(ValueError, match=message):
        frechet_inception_distance(features, reference)
