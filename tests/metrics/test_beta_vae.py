import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from disentangle.metrics import beta_vae
from disentangle.metrics.beta_vae import beta_vae_score

SIZES = [3, 6, 40, 32]
DEVIATIONS = np.sqrt((np.square(SIZES) - 1) / 12)
FEW = {"train_points": 600, "test_points": 400}


def identity(factors):
    return factors / DEVIATIONS


def test_perfect_codes_get_one():
    result = beta_vae_score(identity, SIZES, **FEW)
    assert result.score == result.train_accuracy == 1
    np.testing.assert_array_equal(result.confusion, np.diag(np.diag(result.confusion)))
    assert result.confusion.sum() == 400
    np.testing.assert_array_equal(np.diag(result.differences), 0)
    assert (result.differences[~np.eye(4, dtype=bool)] > 1).all()
    assert (result.train_points, result.test_points) == (600, 400)


def test_order_sign_and_copies_of_codes_do_not_matter():
    def represent(factors):
        shuffled = identity(factors)[:, [2, 0, 3, 1]] * [-1, 1, 1, -1]
        return np.concatenate([shuffled, shuffled], axis=1)

    assert beta_vae_score(represent, SIZES, **FEW).score == 1


def test_a_generic_rotation_looks_perfect():
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    assert beta_vae_score(lambda f: identity(f) @ rotation, SIZES, **FEW).score > 0.95


def test_codes_that_share_all_factors_alike_get_chance():
    result = beta_vae_score(lambda f: f @ hadamard(4) / 10, [20] * 4, **FEW)
    assert 0.15 < result.score < 0.40


def test_a_factor_that_no_code_holds_is_named_by_exclusion():
    assert beta_vae_score(lambda f: identity(f)[:, :3], SIZES, **FEW).score == 1


@pytest.mark.parametrize("codes", ["noise", "constant"])
def test_codes_without_information_get_chance(codes):
    rng = np.random.default_rng(5)

    def represent(factors):
        return (
            rng.normal(size=(len(factors), 3)) if codes == "noise" else np.ones((len(factors), 3))
        )

    assert 0.15 < beta_vae_score(represent, SIZES, **FEW).score < 0.40


def test_one_code_tells_one_factor():
    result = beta_vae_score(lambda f: identity(f)[:, :1], SIZES, **FEW)
    assert result.differences.shape == (1, 4)
    assert result.confusion[0].argmax() == 0
    assert result.confusion[0, 1:].sum() == result.confusion[1:, 0].sum() == 0


def test_it_is_the_published_protocol(monkeypatch):
    """Points, one batch after the other, from the very factors that were represented."""
    calls = []

    def represent(factors):
        calls.append(factors.copy())
        return factors @ mixing

    mixing = np.random.default_rng(3).normal(size=(4, 3)) / np.array(SIZES)[:, None]
    monkeypatch.setattr(beta_vae, "CHUNK", 1280)  # ten batches of 64 pairs
    result = beta_vae_score(represent, SIZES, **FEW)
    assert max(map(len, calls)) == 1280
    pairs = [call.reshape(2, -1, 64, 4) for call in calls]
    points, labels = [], []
    for first, second in zip(
        *(np.concatenate(sides) for sides in zip(*pairs, strict=True)), strict=True
    ):
        (shared,) = np.flatnonzero((first == second).all(axis=0))
        assert len(np.unique(first[:, shared])) > 1  # the value differs from pair to pair
        points.append(np.mean(np.abs(first @ mixing - second @ mixing), axis=0))
        labels.append(shared)
    points, labels = np.array(points), np.array(labels)
    assert len(points) == 1_000
    model = LogisticRegression(max_iter=1_000).fit(points[:600], labels[:600])
    assert result.score == model.score(points[600:], labels[600:])
    confusion = confusion_matrix(labels[600:], model.predict(points[600:]))
    assert (confusion != confusion.T).any()
    np.testing.assert_array_equal(result.confusion, confusion)
    assert 0.4 < result.score < 1
    assert result.train_accuracy == model.score(points[:600], labels[:600])
    means = [points[:600][labels[:600] == f].mean(axis=0) for f in range(4)]
    np.testing.assert_allclose(result.differences, np.array(means).T, atol=1e-12)


def test_the_seed_decides():
    def noisy(factors):
        return identity(factors) @ np.random.default_rng(0).normal(size=(4, 2))

    first, again, other = (beta_vae_score(noisy, SIZES, seed=s, **FEW) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.differences, again.differences)
    assert (first.differences != other.differences).any()


def test_a_factor_with_one_value_is_left_out_and_reported():
    result = beta_vae_score(lambda f: f / 1, [3, 1, 6], **FEW)
    assert result.excluded_factors == (1,)
    assert not result.confusion[1].any()
    assert np.isnan(result.differences[:, 1]).all()
    assert result.score == 1


def test_tensors_are_taken():
    result = beta_vae_score(lambda f: torch.from_numpy(f).float(), SIZES, **FEW)
    assert result.score == 1


@pytest.mark.parametrize(
    ("represent", "sizes", "options", "message"),
    [
        (identity, [4, 1], {}, r"at least 2 factors must take two values or more, got \[4, 1\]"),
        (identity, [3, 0], {}, r"factor sizes must be positive integers, got \[3, 0\]"),
        (identity, SIZES, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (identity, SIZES, {"train_points": 1}, "train_points must be at least 2, got 1"),
        (identity, SIZES, {"test_points": 0}, "test_points must be at least 1, got 0"),
        (identity, SIZES, {"max_iterations": 0}, "max_iterations must be at least 1, got 0"),
        (lambda f: f[:7], SIZES, {}, r"codes must have the shape \(\d+, K\).*got \(7, 4\)"),
        (lambda f: f * np.nan, SIZES, {}, "codes must be finite"),
    ],
)
def test_bad_input_is_refused(represent, sizes, options, message):
    with pytest.raises(ValueError, match=message):
        beta_vae_score(represent, sizes, **{**FEW, **options})


def test_training_points_that_share_one_factor_are_refused():
    with pytest.raises(ValueError, match="got 2 points that all hold factor"):
        beta_vae_score(
            identity, SIZES, train_points=2, test_points=1, seed=10
        )  # both draw factor 3
