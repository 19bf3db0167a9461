import numpy as np
import pytest
import torch

from disentangle.data import GroundTruthData, RenderedSprites, sample_pairs


class Factors(GroundTruthData):
    """Factors of given sizes, without images."""

    def __init__(self, *sizes):
        names = tuple(f"factor {k}" for k in range(len(sizes)))
        super().__init__(image_size=1, image_channels=1, factor_names=names, factor_sizes=sizes)

    def _images(self, indices):
        raise NotImplementedError


def draw(data, n, shared, seed=0):
    return sample_pairs(data, n, np.random.default_rng(seed), shared=shared)


@pytest.mark.parametrize("shared", range(5))
def test_exactly_so_many_factors_are_shared_and_the_others_differ(shared):
    data = Factors(2, 3, 5, 7)
    first, second, mask = draw(data, 500, shared)
    assert first.shape == second.shape == mask.shape == (500, 4)
    assert first.dtype == second.dtype == np.int64
    assert mask.dtype == bool
    assert np.array_equal(first == second, mask)
    assert (mask.sum(1) == shared).all()
    assert data.index(first).max() < len(data)  # which refuses a factor out of range
    assert data.index(second).max() < len(data)


def test_a_range_draws_each_number_equally_often():
    counts = np.bincount(draw(Factors(2, 3, 5, 7), 6000, (1, 3)).shared.sum(1), minlength=5)
    assert (counts[[0, 4]] == 0).all()
    assert (abs(counts[1:4] - 2000) < 200).all()


def test_each_set_of_shared_factors_is_equally_likely():
    mask = draw(Factors(2, 3, 5, 7), 6000, 2).shared
    _, counts = np.unique(mask, axis=0, return_counts=True)
    assert len(counts) == 6
    assert (abs(counts - 1000) < 150).all()


def test_pairs_are_uniform_over_those_that_fit():
    data = Factors(2, 3)
    first, second, _ = draw(data, 12_000, 1)
    indices = np.stack([data.index(first), data.index(second)])
    pairs, counts = np.unique(indices, axis=1, return_counts=True)
    assert pairs.shape == (2, 18)  # of 6 first ones, each with 1 + 2 second ones
    differs_in_first = data.factors(pairs[0])[:, 0] != data.factors(pairs[1])[:, 0]
    expected = np.where(differs_in_first, 12_000 / 6 / 2, 12_000 / 6 / 2 / 2)
    assert (abs(counts - expected) < 6 * np.sqrt(expected)).all()


def test_a_factor_of_a_single_value_is_shared_first():
    mask = draw(Factors(1, 3, 1, 4), 1000, 3).shared
    assert mask[:, [0, 2]].all()
    assert (mask.sum(1) == 3).all()
    assert 400 < mask[:, 1].sum() < 600


def test_the_seed_decides():
    data = Factors(4, 5)
    for one, same, other in zip(
        draw(data, 9, 1), draw(data, 9, 1), draw(data, 9, 1, 1), strict=True
    ):
        assert np.array_equal(one, same)
        assert not np.array_equal(one, other)


def test_images_of_a_pair_differ_in_what_is_not_shared():
    data = RenderedSprites()
    first, second, _ = draw(data, 8, (0, len(data.factor_sizes)))
    equal = [
        torch.equal(one, other)
        for one, other in zip(*map(data.render, (first, second)), strict=True)
    ]
    assert equal == [np.array_equal(one, other) for one, other in zip(first, second, strict=True)]


def test_no_pairs():
    assert draw(Factors(2, 3), 0, 1).first.shape == (0, 2)


@pytest.mark.parametrize(
    ("n", "shared", "message"),
    [
        (-1, 1, "n must not be negative, got -1"),
        (1, -1, "shared must be from 1 to 3, got -1"),
        (1, 0, "shared must be from 1 to 3, got 0"),
        (1, 4, "shared must be from 1 to 3, got 4"),
        (1, (2, 1), r"shared must be from 1 to 3, got \(2, 1\)"),
        (1, (1, 4), r"shared must be from 1 to 3, got \(1, 4\)"),
    ],
)
def test_bad_arguments(n, shared, message):
    with pytest.raises(ValueError, match=message):
        draw(Factors(2, 1, 3), n, shared)
