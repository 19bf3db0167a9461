import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from disentangle.metrics.modularity import modularity

DSPRITES = [3, 6, 40, 32, 32]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def reference_modularity(codes, factors, bins):
    """The published protocol, one code at a time."""
    scores = []
    for code in codes.T:
        bin_of = np.digitize(code, np.histogram(code, bins)[1][:-1])
        squares = [mutual_info_score(factor, bin_of) ** 2 for factor in factors.T]
        largest = max(squares)
        scores.append(1 - (sum(squares) - largest) / (largest * (len(squares) - 1)))
    return scores


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [2, 20])
def test_is_the_published_protocol(rng, dtype, bins):
    factors = rng.integers(0, DSPRITES, size=(2_000, 5))
    mixing = rng.normal(size=(5, 6)) * (rng.random((5, 6)) < 0.4)
    codes = (factors @ mixing + rng.normal(size=(2_000, 6))).astype(dtype)
    result = modularity(codes, factors, bins=bins)
    expected = reference_modularity(codes, factors, bins)
    np.testing.assert_allclose(result.per_code, expected, atol=1e-12)
    assert result.score == pytest.approx(np.mean(expected), abs=1e-12)


def test_perfect_and_duplicated_codes_get_one():
    grid = np.stack(np.meshgrid(*map(np.arange, DSPRITES[:4]), indexing="ij"), axis=-1)
    factors = grid.reshape(-1, 4)
    np.testing.assert_allclose(modularity(factors, factors).per_code, 1, atol=1e-12)
    twice = np.concatenate([factors, -factors, factors[:, :1]], axis=1)
    np.testing.assert_allclose(modularity(twice, factors).per_code, 1, atol=1e-12)


def test_codes_with_equal_information_get_zero():
    bits = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), axis=-1).reshape(-1, 3).repeat(5, axis=0)
    both = 1.0 * bits[:, :2].sum(axis=1, keepdims=True)
    # of three factors, two are known equally well: 1 − 1/2
    np.testing.assert_allclose(modularity(both, bits).per_code, 0.5, atol=1e-12)
    np.testing.assert_allclose(modularity(both, bits[:, :2]).per_code, 0, atol=1e-12)


def test_a_partial_rotation_is_in_between(rng):
    factors = rng.integers(0, 10, size=(5_000, 2))
    scores = []
    for angle in (0, np.pi / 16, np.pi / 8, np.pi / 4):
        turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        scores.append(modularity(factors @ turn, factors).score)
    assert scores[0] > 0.99
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.1


def test_constant_codes_count_as_zero(rng):
    factors = rng.integers(0, [3, 6], size=(2_000, 2))
    codes = np.concatenate([factors, np.full((2_000, 2), 0.1)], axis=1)
    result = modularity(codes, factors)
    np.testing.assert_array_equal(result.per_code[2:], 0)
    assert result.score == pytest.approx(modularity(factors, factors).score / 2)
    assert modularity(0 * codes, factors).score == 0


def test_noise_does_not_get_zero(rng):
    factors = rng.integers(0, DSPRITES, size=(10_000, 5))
    for codes in (rng.normal(size=(10_000, 10)), rng.uniform(size=(10_000, 10))):
        assert 0.6 < modularity(codes, factors).score < 0.75


def test_one_code_is_enough(rng):
    factors = rng.integers(0, 4, size=(1_000, 2))
    assert modularity(factors[:, :1], factors).per_code.shape == (1,)
    assert modularity(factors[:, :1], factors).score == pytest.approx(1, abs=1e-4)


def test_order_and_sign_do_not_matter(rng):
    factors = rng.integers(0, [3, 6, 8], size=(3_000, 3))
    codes = factors @ rng.normal(size=(3, 5)) + rng.normal(size=(3_000, 5))  # no ties at edges
    scores = modularity(codes, factors).per_code
    points = rng.permutation(3_000)
    moved = modularity(-codes[points, ::-1], 9 - 2 * factors[points, ::-1])
    np.testing.assert_allclose(moved.per_code[::-1], scores, atol=1e-12)


def test_a_factor_with_one_value_is_left_out_and_reported(rng):
    factors = rng.integers(0, [3, 1, 6], size=(1_000, 3))
    codes = factors @ rng.normal(size=(3, 4))
    result = modularity(codes, factors)
    assert result.excluded_factors == (1,)
    assert result.score == modularity(codes, factors[:, [0, 2]]).score
    np.testing.assert_array_equal(result.mutual_information[:, 1], 0)


def test_tensors_give_what_arrays_give(rng):
    factors = rng.integers(0, 5, size=(500, 2))
    codes = rng.normal(size=(500, 3)).astype(np.float32)
    tensor = torch.from_numpy(codes).requires_grad_()
    assert modularity(tensor, torch.from_numpy(factors)).score == modularity(codes, factors).score


GOOD = np.random.default_rng(1).normal(size=(100, 3))
FACTORS = np.random.default_rng(1).integers(0, 4, size=(100, 2))


@pytest.mark.parametrize(
    ("codes", "factors", "options", "message"),
    [
        (GOOD[:, 0], FACTORS, {}, r"shape \(N, K\) with K ≥ 1, got \(100,\)"),
        (GOOD[:90], FACTORS, {}, "same number of points, got 90 codes and 100 factors"),
        (GOOD[:19], FACTORS[:19], {}, "at least 20 points are needed, got 19"),
        (GOOD, FACTORS / 1, {}, "factors must be integers, got float64"),
        (GOOD * np.inf, FACTORS, {}, "codes must be finite"),
        (GOOD, FACTORS[:, :1], {}, r"at least 2 factors must take two values or more, got \[4\]"),
        (GOOD, FACTORS * [1, 0], {}, r"at least 2 factors must take.*, got \[4, 1\]"),
        (GOOD, FACTORS, {"bins": 1}, "bins must be at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(codes, factors, options, message):
    with pytest.raises(ValueError, match=message):
        modularity(codes, factors, **options)
