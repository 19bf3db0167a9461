import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from disentangle.metrics import factor_vae, factor_vae_score

SIZES = [3, 6, 40, 32]
FEW = {"train_points": 1_000, "test_points": 500, "variance_points": 1_000}


def identity(factors):
    return factors.astype(np.float64)


def test_perfect_codes_get_one():
    result = factor_vae_score(identity, SIZES, **FEW)
    assert result.score == result.train_accuracy == 1
    assert result.votes.shape == (4, 4)
    np.testing.assert_array_equal(result.votes, np.diag(np.diag(result.votes)))
    assert result.votes.sum() == 1_000
    assert result.test_votes.sum() == 500
    assert (result.train_points, result.test_points) == (1_000, 500)


def test_order_sign_scale_and_copies_of_codes_do_not_matter():
    def represent(factors):
        shuffled = identity(factors)[:, [2, 0, 3, 1]] * [-1, 0.5, 100, -3]
        return np.concatenate([shuffled, shuffled], axis=1)

    assert factor_vae_score(represent, SIZES, **FEW).score == 1


def test_noise_gets_chance():
    rng = np.random.default_rng(5)
    result = factor_vae_score(lambda f: rng.normal(size=(len(f), 6)), SIZES, **FEW)
    assert 0.15 < result.score < 0.40


def test_codes_that_share_all_factors_alike_get_chance():
    rotation = hadamard(4) / 2
    deviations = np.sqrt((np.square(SIZES) - 1) / 12)
    result = factor_vae_score(lambda f: (f / deviations) @ rotation, SIZES, **FEW)
    assert 0.15 < result.score < 0.40


def test_codes_with_one_leading_factor_each_look_perfect():
    mixing = np.eye(4) + 0.3 * hadamard(4)
    deviations = np.sqrt((np.square(SIZES) - 1) / 12)
    assert factor_vae_score(lambda f: (f / deviations) @ mixing, SIZES, **FEW).score > 0.99


def test_one_code_for_all_gets_the_most_frequent_factor():
    result = factor_vae_score(lambda f: f.sum(axis=1, keepdims=True), SIZES, **FEW)
    assert result.votes.shape == (1, 4)
    assert result.score == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("prune_below", [0.05, 0.0])
def test_constant_codes_get_zero(prune_below):
    result = factor_vae_score(lambda f: np.ones((len(f), 3)), SIZES, prune_below=prune_below, **FEW)
    assert result.score == result.train_accuracy == 0
    assert not result.active_codes.any()
    assert not result.votes.any()


def test_collapsed_codes_are_pruned_by_their_standard_deviation():
    rng = np.random.default_rng(0)

    def represent(factors):
        noise = rng.normal(size=(len(factors), 2)) * [0.04, 0.06]
        return np.concatenate([noise, identity(factors)], axis=1)

    result = factor_vae_score(represent, SIZES, **FEW)
    np.testing.assert_array_equal(result.active_codes, [False, True, True, True, True, True])
    assert not result.votes[0].any()
    np.testing.assert_allclose(np.sqrt(result.variances[:2]), [0.04, 0.06], rtol=0.1)
    assert result.score == 1


def test_it_is_the_published_protocol(monkeypatch):
    """Votes, one batch after the other, from the very factors that were represented."""
    calls = []

    def represent(factors):
        calls.append(factors.copy())
        return factors @ mixing

    mixing = np.random.default_rng(3).normal(size=(4, 5)) / np.array(SIZES)[:, None]
    monkeypatch.setattr(factor_vae, "CHUNK", 640)  # ten batches at a time
    result = factor_vae_score(represent, SIZES, **FEW)
    assert max(map(len, calls)) == 640
    variance_factors = np.concatenate(calls[:2])
    batches = np.concatenate(calls[2:]).reshape(-1, 64, 4)
    assert (len(variance_factors), len(batches)) == (1_000, 1_500)
    global_variances = np.var(variance_factors @ mixing, axis=0, ddof=1)
    votes = np.zeros((2, 5, 4), dtype=int)
    for i, batch in enumerate(batches):
        (fixed,) = np.flatnonzero((batch == batch[0]).all(axis=0))
        quiet = np.argmin(np.var(batch @ mixing, axis=0, ddof=1) / global_variances)
        votes[int(i >= 1_000), quiet, fixed] += 1
    np.testing.assert_array_equal(result.votes, votes[0])
    np.testing.assert_array_equal(result.test_votes, votes[1])
    classifier = votes[0].argmax(axis=1)
    assert result.score == votes[1][np.arange(5), classifier].sum() / 500
    assert result.train_accuracy == votes[0][np.arange(5), classifier].sum() / 1_000


def test_the_seed_decides():
    def noisy(factors):
        return factors @ np.random.default_rng(0).normal(size=(4, 4))

    first, again, other = (factor_vae_score(noisy, SIZES, seed=s, **FEW) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.votes, again.votes)
    assert (first.votes != other.votes).any()


def test_a_factor_with_one_value_is_left_out_and_reported():
    result = factor_vae_score(identity, [3, 1, 6], **FEW)
    assert result.excluded_factors == (1,)
    assert not result.votes[:, 1].any()
    assert result.score == 1


def test_tensors_are_taken():
    result = factor_vae_score(lambda f: torch.from_numpy(f).float(), SIZES, **FEW)
    assert result.score == 1


@pytest.mark.parametrize(
    ("represent", "sizes", "options", "message"),
    [
        (identity, [1, 1], {}, "at least one factor must take two values or more"),
        (identity, [3, 0], {}, r"factor sizes must be positive integers, got \[3, 0\]"),
        (identity, [3.0, 2.0], {}, "factor sizes must be positive integers"),
        (identity, SIZES, {"batch_size": 1}, "batch_size must be at least 2, got 1"),
        (identity, SIZES, {"train_points": 0}, "train_points must be at least 1, got 0"),
        (identity, SIZES, {"test_points": 0}, "test_points must be at least 1, got 0"),
        (identity, SIZES, {"variance_points": 1}, "variance_points must be at least 2, got 1"),
        (lambda f: f[:7], SIZES, {}, r"codes must have the shape \(1000, K\).*got \(7, 4\)"),
        (lambda f: f * np.nan, SIZES, {}, "codes must be finite"),
    ],
)
def test_bad_input_is_refused(represent, sizes, options, message):
    with pytest.raises(ValueError, match=message):
        factor_vae_score(represent, sizes, **{**FEW, **options})
