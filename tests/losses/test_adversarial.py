import pytest
import torch
from torch import nn
from torch.nn import functional

from disentangle.losses.adversarial import (
    LOSSES,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    mix_images,
    r1_penalty,
)


def test_hinge():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])
    assert discriminator_loss(real, fake, "hinge") == 0.25 + 0.5
    assert generator_loss(fake, "hinge") == 1.0
    assert generator_loss(fake, "hinge", hinged=True) == 2.0


def test_non_saturating_is_cross_entropy_and_bce_its_half():
    real, fake = torch.randn(5), torch.randn(5)
    ones, zeros = torch.ones(5), torch.zeros(5)
    cross_entropy = functional.binary_cross_entropy_with_logits
    expected = cross_entropy(real, ones) + cross_entropy(fake, zeros)
    torch.testing.assert_close(discriminator_loss(real, fake, "non_saturating"), expected)
    torch.testing.assert_close(discriminator_loss(real, fake, "bce"), expected / 2)
    for kind in ("non_saturating", "bce"):
        torch.testing.assert_close(generator_loss(fake, kind), cross_entropy(fake, ones))


def test_lsgan_takes_the_square_once():
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 3.0])
    # Squares 4 and 0 of real, 1 and 9 of made images; twice squared they would be 16, 0, 1, 81.
    assert discriminator_loss(real, fake, "lsgan") == 0.5 * 2 + 0.5 * 5
    assert generator_loss(fake, "lsgan") == 0.5 * 4
    assert discriminator_loss(torch.ones(2), torch.zeros(2), "lsgan") == 0


def test_wasserstein_is_the_gap_between_the_means():
    real, fake = torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 2.0, 5.0])
    assert discriminator_loss(real, fake, "wasserstein") == 2.0 - 2.0
    assert discriminator_loss(real + 7, fake, "wasserstein") == -7.0
    assert generator_loss(fake, "wasserstein") == -2.0


@pytest.mark.parametrize("kind", LOSSES)
def test_both_networks_gain_by_what_they_are_for(kind):
    real, fake = torch.full((3,), 0.2), torch.full((3,), 0.3)
    base = discriminator_loss(real, fake, kind)
    assert discriminator_loss(real + 0.1, fake, kind) < base
    assert discriminator_loss(real, fake - 0.1, kind) < base
    assert generator_loss(fake + 0.1, kind) < generator_loss(fake, kind)


def test_other_losses_are_refused():
    logits = torch.zeros(2)
    known = "one of hinge, non_saturating, bce, lsgan, wasserstein, got 'wgan'"
    with pytest.raises(ValueError, match=known):
        discriminator_loss(logits, logits, "wgan")
    with pytest.raises(ValueError, match=known):
        generator_loss(logits, "wgan")
    with pytest.raises(ValueError, match="hinged requires the loss hinge, got 'lsgan'"):
        generator_loss(logits, "lsgan", hinged=True)


def test_r1_of_a_linear_discriminator_is_its_squared_norm():
    weight = torch.randn(1, 3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty((images * weight).sum((1, 2, 3)), images)
    assert torch.isclose(penalty, weight.square().sum())


@pytest.mark.parametrize("norm", [0.5, 1.0, 4.0])
def test_gradient_penalty_of_a_linear_discriminator(norm):
    weight = functional.normalize(torch.randn(3 * 4 * 4), dim=0).view(1, 3, 4, 4) * norm
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = gradient_penalty((images * weight).sum((1, 2, 3)), images)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)


def test_gradient_penalty_is_the_mean_over_images_and_trains():
    slopes = torch.tensor([0.0, 2.0, 3.0], requires_grad=True)
    images = torch.randn(3, 1, 1, 1, requires_grad=True)
    penalty = gradient_penalty(slopes * images.flatten(), images)
    assert penalty.item() == pytest.approx((1 + 1 + 4) / 3)
    (gradient,) = torch.autograd.grad(penalty, slopes)
    # Where the slope is 0 the norm has a kink: no direction, and no NaN.
    torch.testing.assert_close(gradient, torch.tensor([0.0, 2 / 3, 4 / 3]))


def test_gradient_penalty_is_differentiable_in_the_weights():
    discriminator = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 1)
    ).double()
    images = torch.randn(2, 1, 2, 2, dtype=torch.double)

    def penalty(*parameters):
        leaf = images.clone().requires_grad_()
        values = dict(zip(dict(discriminator.named_parameters()), parameters, strict=True))
        logits = torch.func.functional_call(discriminator, values, (leaf,)).squeeze(1)
        return gradient_penalty(logits, leaf) + 0 * logits.sum()  # the last bias has no other part

    assert torch.autograd.gradcheck(penalty, tuple(discriminator.parameters()))


def test_mixed_images_lie_between_and_are_cut_off():
    real, fake = torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2, requires_grad=True)
    mixing = torch.tensor([0.0, 0.25, 1.0])
    mixed = mix_images(real, fake, mixing)
    assert mixed.is_leaf
    assert mixed.requires_grad
    assert torch.equal(mixed, mixing[:, None, None, None].expand(3, 1, 2, 2))


def test_bad_mixtures():
    images = torch.zeros(3, 1, 2, 2)
    with pytest.raises(ValueError, match=r"same shape, got \(3, 1, 2, 2\) and \(2, 1, 2, 2\)"):
        mix_images(images, images[:2], torch.zeros(3))
    with pytest.raises(ValueError, match=r"per image, \(3,\), got \(3, 1\)"):
        mix_images(images, images, torch.zeros(3, 1))
