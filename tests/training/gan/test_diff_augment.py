import pytest
import torch

from disentangle.training.gan.diff_augment import (
    DRAWS,
    change_colour,
    cut_out,
    diff_augment,
    translate,
)


def test_probability_zero_changes_nothing_and_one_changes_all():
    images = torch.rand(16, 3, 32, 32)
    draws = torch.rand(16, DRAWS)
    assert torch.equal(diff_augment(images, draws, 0.0), images)
    changed = (diff_augment(images, draws, 1.0) != images).flatten(1).any(1)
    assert changed.all()


def test_pure_and_independent_of_the_batch():
    images, draws = torch.rand(8, 3, 32, 32), torch.rand(8, DRAWS)
    whole = diff_augment(images, draws, 0.6)
    assert torch.equal(whole, diff_augment(images, draws, 0.6))
    assert torch.allclose(whole[2:4], diff_augment(images[2:4], draws[2:4], 0.6))


@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_are_those_of_finite_differences(channels):
    images = torch.rand(2, channels, 8, 8, dtype=torch.float64, requires_grad=True)
    draws = torch.rand(2, DRAWS, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, draws, 1.0), images)


def test_colour_in_the_middle_is_the_identity():
    images = torch.rand(2, 3, 8, 8)
    assert torch.allclose(change_colour(images, torch.full((2, 3), 0.5)), images, atol=1e-6)


@pytest.mark.parametrize(("amount", "shift"), [(0.0, -4), (0.5, 0), (0.999, 4)])
def test_translation_reaches_an_eighth_both_ways(amount, shift):
    images = torch.zeros(1, 1, 32, 32)
    images[0, 0, 10, 20] = 1
    right = translate(images, torch.tensor([[amount, 0.5]]))
    assert right[0, 0].nonzero().tolist() == [[10, 20 + shift]]
    down = translate(images, torch.tensor([[0.5, amount]]))
    assert down[0, 0].nonzero().tolist() == [[10 + shift, 20]]


def test_translation_brings_in_zeros():
    moved = translate(torch.ones(1, 1, 16, 16), torch.tensor([[0.999, 0.0]]))
    assert moved.sum() == 14 * 14
    assert not moved[0, 0, :, :2].any()


def test_cutout_takes_a_square_of_half_the_size():
    cut = cut_out(torch.ones(1, 1, 32, 32), torch.tensor([[0.5, 0.5]]))
    assert (cut == 0).sum() == 16 * 16
    corner = cut_out(torch.ones(1, 1, 32, 32), torch.tensor([[0.0, 0.0]]))
    assert (corner == 0).sum() == 8 * 8
