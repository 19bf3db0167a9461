import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from disentangle.losses.variation_predictability import choose_axes, move_along, variation_loss
from disentangle.models.variation_recogniser import VariationRecogniser


def test_every_axis_is_chosen_as_often():
    numbers = (torch.arange(1000) + 0.5) / 1000
    counts = torch.bincount(choose_axes(numbers, 8))
    assert counts.tolist() == [125] * 8


@pytest.mark.parametrize("count", [2, 3, 6, 30, 100, 511])
def test_the_largest_number_chooses_the_last_axis(count):
    largest = torch.tensor([1 - 2**-24])
    assert largest < 1
    assert choose_axes(largest, count) == count - 1


def test_one_axis_moves():
    axes = torch.linalg.qr(torch.randn(5, 5)).Q[:3]
    z, amounts, chosen = torch.randn(4, 5), torch.randn(4), torch.tensor([2, 0, 1, 2])
    coordinates = (move_along(z, axes, chosen, amounts) - z) @ axes.T
    expected = torch.zeros(4, 3).scatter(1, chosen[:, None], amounts[:, None])
    torch.testing.assert_close(coordinates, expected)


def test_the_loss_is_the_log_probability_of_the_axis():
    logits, chosen = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    images, moved = torch.randn(2, 5, 1, 2, 2)
    seen = []

    def recogniser(differences):
        seen.append(differences)
        return logits

    loss = variation_loss(recogniser, images, moved, chosen)
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -sum(probabilities[i, d].log() for i, d in enumerate(chosen.tolist())) / 5
    torch.testing.assert_close(loss, expected)
    assert torch.equal(seen[0], images - moved)
    # Not that of OroJaR's code, a sigmoid for each axis.
    one_hot = torch.nn.functional.one_hot(chosen, 3).float()
    assert not torch.isclose(loss, binary_cross_entropy_with_logits(logits, one_hot))


def test_without_a_change_it_is_chance():
    recogniser = VariationRecogniser(axis_count=6, image_size=32)
    torch.nn.init.zeros_(recogniser.output.bias)
    torch.nn.init.zeros_(recogniser.output.weight)
    images = torch.randn(4, 3, 32, 32)
    loss = variation_loss(recogniser, images, images, torch.tensor([0, 1, 2, 5]))
    assert loss.item() == pytest.approx(math.log(6))


def test_generator_and_recogniser_both_learn():
    recogniser = VariationRecogniser(axis_count=2, image_size=32, image_channels=1)
    # Two directions of change, at first nearly the same one.
    stripes = torch.linspace(0, 20, 32).sin().expand(32, 32)
    patterns = torch.stack([stripes, stripes + 0.1 * stripes.T]).requires_grad_()
    optimizer = torch.optim.Adam([patterns, *recogniser.parameters()], lr=0.01)
    start = patterns.detach().clone()
    losses = []
    for _ in range(100):
        z = torch.randn(32, 2)
        chosen = choose_axes(torch.rand(32), 2)
        moved = move_along(z, torch.eye(2), chosen, torch.randn(32))
        images, after = ((p @ patterns.flatten(1)).view(-1, 1, 32, 32) for p in (z, moved))
        loss = variation_loss(recogniser, images, after, chosen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[:5]) / 5 > 0.5
    assert sum(losses[-20:]) / 20 < 0.3
    a, b = (torch.cosine_similarity(*p.flatten(1), dim=0).abs() for p in (start, patterns))
    assert b < a


def test_bad_input():
    z, axes, chosen, amounts = torch.zeros(4, 3), torch.eye(3), torch.zeros(4).long(), torch.ones(4)
    with pytest.raises(ValueError, match=r"\(N, D\) and \(A, D\), got \(4, 3\) and \(2, 2\)"):
        move_along(z, torch.eye(2), chosen, amounts)
    with pytest.raises(ValueError, match=r"amounts must .*\(4,\), got \(4, 1\)"):
        move_along(z, axes, chosen, amounts[:, None])
    with pytest.raises(ValueError, match=r"chosen must .*\(4,\), got \(3,\)"):
        move_along(z, axes, chosen[:3], amounts)
    images = torch.zeros(4, 1, 2, 2)
    with pytest.raises(ValueError, match=r"got \(4, 1, 2, 2\) and \(3, 1, 2, 2\)"):
        variation_loss(lambda d: d.flatten(1), images, images[:3], chosen)
    with pytest.raises(ValueError, match=r"\(N, A\) and \(N,\), got \(4, 4\) and \(3,\)"):
        variation_loss(lambda d: d.flatten(1), images, images, chosen[:3])
