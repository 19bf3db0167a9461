import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional

from disentangle.training.losses import (
    discriminator_loss,
    gaussian_divergence,
    generator_loss,
    r1_penalty,
    reconstruction_loss,
)


def test_hinge():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])
    assert discriminator_loss(real, fake, "hinge") == 0.25 + 0.5
    assert generator_loss(fake, "hinge") == 1.0
    assert generator_loss(fake, "hinge", hinged=True) == 2.0


def test_non_saturating_is_cross_entropy():
    real, fake = torch.randn(5), torch.randn(5)
    ones, zeros = torch.ones(5), torch.zeros(5)
    cross_entropy = functional.binary_cross_entropy_with_logits
    expected = cross_entropy(real, ones) + cross_entropy(fake, zeros)
    assert torch.isclose(discriminator_loss(real, fake, "non_saturating"), expected)
    assert torch.isclose(generator_loss(fake, "non_saturating"), cross_entropy(fake, ones))


def test_r1_of_a_linear_critic_is_its_squared_norm():
    weight = torch.randn(1, 3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty((images * weight).sum((1, 2, 3)), images)
    assert torch.isclose(penalty, weight.square().sum())


def test_divergence_is_the_closed_form():
    mean, log_variance = torch.randn(6, 4), torch.randn(6, 4)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).mean(0)
    assert torch.allclose(gaussian_divergence(mean, log_variance), expected, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_reconstruction_is_the_negative_log_likelihood(likelihood):
    logits = torch.randn(3, 1, 4, 4)
    images = torch.randint(0, 2, (3, 1, 4, 4)) * 2.0 - 1
    if likelihood == "bernoulli":
        log_likelihood = Bernoulli(logits=logits).log_prob((images + 1) / 2)
    else:
        log_likelihood = Normal(2 * logits.sigmoid() - 1, 1.0).log_prob(images)
    expected = -log_likelihood.sum((1, 2, 3)).mean()
    assert torch.isclose(reconstruction_loss(logits, images, likelihood), expected)
