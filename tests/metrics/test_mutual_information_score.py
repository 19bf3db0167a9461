import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from disentangle.metrics.information import discretize, mutual_information
from disentangle.metrics.mutual_information_score import mutual_information_score


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [2, 20])
def test_is_the_published_protocol(rng, dtype, bins):
    codes = (rng.normal(size=(1_000, 4)) @ rng.normal(size=(4, 4))).astype(dtype)
    binned = [np.digitize(x, np.histogram(x, bins)[1][:-1]) for x in codes.T]
    matrix = np.array([[mutual_info_score(a, b) for b in binned] for a in binned])
    result = mutual_information_score(codes, bins=bins)
    np.testing.assert_allclose(result.mutual_information, matrix, atol=1e-12)
    np.fill_diagonal(matrix, 0)
    assert result.score == pytest.approx(matrix.sum() / 12, abs=1e-12)


def test_blocks_of_codes_change_nothing(rng, monkeypatch):
    codes = rng.normal(size=(100, 7))
    whole = mutual_information_score(codes).mutual_information
    monkeypatch.setattr("disentangle.metrics.information.BLOCK", 1_500)  # two codes at a time
    parts = mutual_information_score(codes).mutual_information
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    np.testing.assert_allclose(mutual_information(*[discretize(codes, 20)] * 2), whole, rtol=1e-12)


def test_many_codes_need_little_memory(rng):
    """The joint counts of all pairs of bins would be 1.3 GB, most of them zero."""
    codes = rng.normal(size=(20, 800))
    tracemalloc.start()
    result = mutual_information_score(codes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e8
    assert result.mutual_information.shape == (800, 800)


def test_equal_codes_get_their_entropy():
    line = np.arange(100.0)[:, None]
    for codes in (np.hstack([line, line]), np.hstack([line, -line, 3 * line])):
        assert mutual_information_score(codes).score == pytest.approx(np.log(20), abs=1e-12)


def test_independent_codes_get_their_bias(rng):
    score = mutual_information_score(rng.uniform(size=(10_000, 10))).score
    assert score == pytest.approx(19**2 / 20_000, rel=0.1)
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert mutual_information_score(bits.repeat(5, axis=0)).score == pytest.approx(0, abs=1e-15)


def test_constant_codes_and_one_code_get_zero(rng):
    codes = rng.normal(size=(100, 1))
    assert mutual_information_score(codes).score == 0
    assert mutual_information_score(np.full((100, 3), 0.1)).score == 0
    assert mutual_information_score(np.hstack([codes, np.ones((100, 1))])).score == 0


def test_order_and_sign_do_not_matter(rng):
    codes = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))
    score = mutual_information_score(codes).score
    moved = codes[rng.permutation(500)][:, ::-1] * [-1, 2, -0.5]
    assert mutual_information_score(moved).score == pytest.approx(score, abs=1e-12)


def test_tensors_give_what_arrays_give(rng):
    codes = rng.normal(size=(50, 3)).astype(np.float32)
    ours = mutual_information_score(torch.from_numpy(codes).requires_grad_()).score
    assert ours == mutual_information_score(codes).score


GOOD = np.random.default_rng(1).normal(size=(100, 3))


@pytest.mark.parametrize(
    ("codes", "bins", "message"),
    [
        (GOOD[:, 0], 20, r"shape \(N, K\) with K ≥ 1, got \(100,\)"),
        (GOOD[:19], 20, "the number of points must be at least 20, got 19"),
        (np.where(GOOD > 2, np.nan, GOOD), 20, "codes must be finite"),
        (GOOD, 1, "bins must be at least 2, got 1"),
    ],
)
def test_bad_input_is_refused(codes, bins, message):
    with pytest.raises(ValueError, match=message):
        mutual_information_score(codes, bins=bins)
