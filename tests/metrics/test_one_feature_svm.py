import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.svm import LinearSVC

from disentangle.metrics.one_feature_svm import fit_one_feature_svms

SIZES = (2, 3, 11)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make_labels(rng, points, sizes=SIZES):
    """Labellings of which each has every class."""
    labels = rng.integers(0, sizes, size=(points, len(sizes)))
    labels[: max(sizes)] = np.arange(max(sizes))[:, None] % sizes
    return labels


def objectives(x, labels, cost, slopes, intercepts):
    """Objective, gradient and the size of its terms, one class after the other, point by point."""
    found = []
    for column in labels.T:
        classes = np.unique(column)
        weights = cost * len(x) / (len(classes) * np.bincount(column))
        for c in classes:
            w, b = slopes[len(found)], intercepts[len(found)]
            y = np.where(column == c, 1, -1)
            rest = weights[1 - c] if len(classes) == 2 else cost
            costs = np.where(column == c, weights[c], rest)
            hinge = np.maximum(0, 1 - y * (w * x + b))
            pulls = -2 * costs * y * hinge
            gradient = np.array([w + (pulls * x).sum(), b + pulls.sum()])
            terms = np.array([abs(w) + np.abs(pulls * x).sum(), abs(b) + np.abs(pulls).sum()])
            found.append(((w**2 + b**2) / 2 + (costs * hinge**2).sum(), gradient, terms))
    return found


def assert_minimal(x, labels, cost, slopes, intercepts):
    """The objective is strictly convex: where the gradient is zero, there is its minimum."""
    for _, gradient, terms in objectives(x, labels, cost, slopes, intercepts):
        assert (np.abs(gradient) <= 1e-9 * terms).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("cost", [0.01, 1.0])
def test_slopes_are_those_of_scikit_learn(rng, scale, cost):
    labels = make_labels(rng, 400)
    x = scale * (labels[:, 2] - 4 + labels[:, 0] + rng.normal(size=400))
    slopes, intercepts = fit_one_feature_svms(x, labels, cost=cost)
    assert_minimal(x, labels, cost, slopes, intercepts)
    start = 0
    for size, column in zip(SIZES, labels.T, strict=True):
        model = LinearSVC(C=cost, class_weight="balanced", dual=False, tol=1e-12, max_iter=10_000)
        model.fit(x[:, None], column)
        ours = slice(start + size - len(model.coef_), start + size)  # of two, it keeps the second
        np.testing.assert_allclose(slopes[ours], model.coef_[:, 0], rtol=1e-5, atol=1e-8 / scale)
        np.testing.assert_allclose(intercepts[ours], model.intercept_, rtol=1e-5, atol=1e-8)
        start += size


def test_two_classes_are_mirror_images(rng):
    labels = make_labels(rng, 100, [2])
    slopes, intercepts = fit_one_feature_svms(rng.normal(size=100), labels, cost=0.1)
    np.testing.assert_allclose([slopes[0], intercepts[0]], [-slopes[1], -intercepts[1]], rtol=1e-9)


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["normal", "few values", "separable", "heavy tails", "constant"]),
    scale=st.floats(-4, 4),
    offset=st.sampled_from([0.0, 1.0, -30.0]),
    cost=st.floats(-4, 4),
)
@settings(derandomize=True, deadline=None, max_examples=150)
def test_the_gradient_is_zero_for_any_feature(seed, kind, scale, offset, cost):
    rng = np.random.default_rng(seed)
    labels = make_labels(rng, int(rng.integers(11, 300)))
    points = len(labels)
    x = {
        "normal": rng.normal(size=points),
        "few values": rng.integers(0, 3, size=points) / 1,
        "separable": labels[:, 2] / 1,
        "heavy tails": rng.standard_cauchy(points),
        "constant": np.zeros(points),
    }[kind]
    x = 10**scale * (x + offset)
    slopes, intercepts = fit_one_feature_svms(x, labels, cost=10**cost)
    # rounding of the data is felt as far as the hinges' positions: relative to costs and features
    for _, gradient, terms in objectives(x, labels, 10**cost, slopes, intercepts):
        reach = np.array([np.abs(x).max(), 1]) * 10**cost * points
        assert (np.abs(gradient) <= 1e-8 * (terms + reach)).all()


@pytest.mark.parametrize("kind", ["separable", "heavy tails"])
def test_extreme_scales_are_solved(rng, kind):
    """Where a class is one point on the line, its own losses do not determine the slope."""
    for scale in np.logspace(-12, 12, 73):
        labels = make_labels(rng, int(rng.integers(30, 600)), [int(rng.integers(2, 30))])
        labels = np.hstack([labels, labels > 0]).astype(int)
        x = scale * (labels[:, 0] if kind == "separable" else rng.standard_cauchy(len(labels)))
        cost = 10 ** rng.uniform(-6, 6)
        slopes, intercepts = fit_one_feature_svms(x, labels, cost=cost)
        least = values(x, labels, cost, slopes, intercepts)
        for w, b in ((0, 0), (0.99, 1), (1.01, 1), (1, 0.99), (1, 1.01), (1.01, 1.01)):
            others = values(x, labels, cost, w * slopes, b * intercepts)
            assert (least <= others * (1 + 1e-11)).all()


def values(*problem):
    return np.array([value for value, *_ in objectives(*problem)])


def test_single_precision_is_computed_in_double(rng):
    labels = make_labels(rng, 300)
    x = rng.normal(size=300).astype(np.float32)
    ours, double = (fit_one_feature_svms(y, labels, cost=0.01) for y in (x, x.astype(np.float64)))
    np.testing.assert_array_equal(ours, double)
    assert ours[0].dtype == np.float64
