import itertools

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

from disentangle.metrics.feature_networks import (
    random_features,
)
from disentangle.metrics.features import (
    FeatureOrigin,
    Features,
    extract_features,
)
from disentangle.metrics.kernel_inception_distance import kernel_inception_distance, squared_mmd


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Identity(torch.nn.Module):
    """The network for torchmetrics: its images are the features."""

    num_features = 5

    def forward(self, x):
        return x


def test_mmd_is_the_published_estimate(rng):
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 1

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within = [
        np.mean([kernel(a, b) for a, b in itertools.permutations(points, 2)]) for points in (x, y)
    ]
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(sum(within) - 2 * between, rel=1e-12)


def test_mmd_of_points_on_a_line_has_the_known_value():
    x, y = np.zeros((2, 1)), np.full((2, 1), 2.0)
    # kernels are 1 within x, (4 + 1)³ within y and 1 between
    assert squared_mmd(x, y) == pytest.approx(1 + 125 - 2)
    assert squared_mmd(x, y, degree=1) == pytest.approx(1 + 5 - 2)


def test_is_the_value_of_torchmetrics_where_chance_has_no_part(rng):
    # with subsets as large as the sets, every subset is the whole
    x = rng.normal(size=(40, 5)).astype(np.float32)
    y = (rng.normal(size=(40, 5)) * 2).astype(np.float32)
    with pytest.warns(UserWarning, match="save all extracted features"):
        theirs = KernelInceptionDistance(feature=Identity(), subsets=2, subset_size=40)
    theirs.update(torch.from_numpy(x), real=False)
    theirs.update(torch.from_numpy(y), real=True)
    expected = theirs.compute()[0].item()
    ours = kernel_inception_distance(x, y, subsets=2, subset_size=40)
    assert ours.score == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(ours.estimates, ours.score, rtol=1e-12)
    assert ours.std == pytest.approx(0, abs=1e-12)


def test_estimate_is_unbiased(rng):
    # independent sets of one distribution: the mean over many repetitions is 0 within its error
    estimates = np.array([squared_mmd(*rng.normal(size=(2, 20, 4))) for _ in range(2_000)])
    error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean()) < 3 * error
    assert 0.2 < (estimates < 0).mean() < 0.8
    assert error < 0.05


def test_same_distribution_and_another_one(rng):
    x, y = rng.normal(size=(2, 3_000, 8))
    options = {"subsets": 20, "subset_size": 500}
    same = kernel_inception_distance(x, y, **options)
    assert abs(same.score) < 0.02
    assert (same.estimates < 0).any()
    assert (same.estimates > 0).any()
    assert kernel_inception_distance(x, 1.5 * y, **options).score > 0.3


def test_third_moments_count_and_fourth_do_not(rng):
    size = (2_000, 1)
    skewed, normal = rng.exponential(size=size) - 1, rng.normal(size=size)
    heavy = rng.choice([-np.sqrt(3), 0, np.sqrt(3)], p=[1 / 6, 2 / 3, 1 / 6], size=size)
    flat = rng.uniform(-np.sqrt(3), np.sqrt(3), size=size)
    # E x³ = 2 for the exponential: the kernel's cubic term alone gives 2² = 4
    assert squared_mmd(skewed, normal) == pytest.approx(4, abs=1.5)
    assert abs(squared_mmd(heavy, flat)) < 0.3


def test_seeds_reproduce(rng):
    x, y = rng.normal(size=(2, 200, 3))
    options = {"subsets": 5, "subset_size": 50}
    first, again, other = (kernel_inception_distance(x, y, seed=s, **options) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.estimates, again.estimates)
    assert not np.array_equal(first.estimates, other.estimates)
    assert first.std == pytest.approx(first.estimates.std(ddof=1))
    assert first.points == (200, 200)
    assert np.isnan(kernel_inception_distance(x, y, subsets=1, subset_size=50).std)


def test_subsets_are_drawn_without_replacement():
    # of two points each, a subset of two is the whole set
    x, y = np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]])
    result = kernel_inception_distance(x, y, subsets=20, subset_size=2)
    np.testing.assert_allclose(result.estimates, squared_mmd(x, y))


def test_order_of_points_and_features_does_not_matter(rng):
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 4)) + 1
    options = {"subsets": 1, "subset_size": 30}
    score = kernel_inception_distance(x, y, **options).score
    columns = rng.permutation(4)
    turned = kernel_inception_distance(x[::-1, columns], y[:, columns], **options)
    assert turned.score == pytest.approx(score, rel=1e-10)


def test_half_precision_features_are_computed_in_double(rng):
    x, y = torch.randn(2, 50, 4).bfloat16()
    wide = [z.double().numpy() for z in (x, y)]
    options = {"subsets": 3, "subset_size": 20}
    score = kernel_inception_distance(x, y, **options).score
    assert score == pytest.approx(kernel_inception_distance(*wide, **options).score, rel=1e-12)


def test_result_says_what_it_was_computed_from():
    network = random_features(seed=3, dim=8)
    a, b, bright = (
        extract_features(network, [torch.rand(6, 1, 16, 16) * scale - shift])
        for scale, shift in ((2, 1), (2, 1), (1, 0))
    )
    result = kernel_inception_distance(a, b, subsets=2, subset_size=4)
    assert result.features == "random (seed 3)"
    assert result.caveat == "random features, not comparable with published values"
    result = kernel_inception_distance(a, bright, subsets=2, subset_size=4)
    assert "the reference images never go below 0: they look like images in [0, 1]" in result.caveat
    with pytest.raises(ValueError, match=r"got \(1, 16, 16\) and \(1, 32, 32\)"):
        kernel_inception_distance(a, extract_features(network, [torch.rand(6, 1, 32, 32)]))


GOOD = np.random.default_rng(1).normal(size=(10, 3))


@pytest.mark.parametrize(
    ("features", "reference", "options", "message"),
    [
        (GOOD, GOOD, {}, "at least subset_size = 1000 points, got 10 and 10"),
        (GOOD, GOOD[:4], {"subset_size": 5}, "at least subset_size = 5 points, got 10 and 4"),
        (GOOD, GOOD[:, :2], {"subset_size": 5}, "same number of features, got 3 and 2"),
        (GOOD, GOOD, {"subset_size": 1}, "subset_size must be at least 2, got 1"),
        (GOOD, GOOD, {"subsets": 0}, "subsets must be at least 1, got 0"),
        (GOOD, GOOD, {"degree": 0}, "degree must be at least 1, got 0"),
        (GOOD[0], GOOD, {}, r"features must have the shape \(N, D\), got \(3,\)"),
        (np.where(GOOD > 1, np.inf, GOOD), GOOD, {}, "features must be finite"),
        (Features(GOOD, FeatureOrigin("a")), GOOD, {}, "same network, got 'a' and 'unnamed'"),
    ],
)
def test_bad_input_is_refused(features, reference, options, message):
    with pytest.raises(ValueError, match=message):
        kernel_inception_distance(features, reference, **options)
