import pytest
import torch
from torch.distributions import Bernoulli, Laplace, Normal, kl_divergence

from disentangle.losses.elbo import gaussian_divergence, reconstruction_loss


def test_divergence_is_the_closed_form():
    mean, log_variance = torch.randn(6, 4), torch.randn(6, 4)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).mean(0)
    assert torch.allclose(gaussian_divergence(mean, log_variance), expected, atol=1e-6)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "laplace"])
def test_reconstruction_is_the_negative_log_likelihood(likelihood):
    logits = torch.randn(3, 1, 4, 4)
    images = torch.randint(0, 2, (3, 1, 4, 4)) * 2.0 - 1
    if likelihood == "bernoulli":
        log_likelihood = Bernoulli(logits=logits).log_prob((images + 1) / 2)
    else:
        distribution = Normal if likelihood == "gaussian" else Laplace
        log_likelihood = distribution(2 * logits.sigmoid() - 1, 1.0).log_prob(images)
    expected = -log_likelihood.sum((1, 2, 3)).mean()
    assert torch.isclose(reconstruction_loss(logits, images, likelihood), expected)


def test_other_likelihoods_are_refused():
    images = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="one of gaussian, laplace, got 'cauchy'"):
        reconstruction_loss(images, images, "cauchy")
