import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from disentangle.losses.beta_tcvae import stratified_weights, total_correlation


def draw_posteriors(n, dim, std=0.5):
    """Codes, means and log variances whose aggregate is a Gaussian, and its covariance."""
    factor = torch.randn(dim, dim).double()
    mean = torch.randn(n, dim).double() @ factor
    z = mean + std * torch.randn(n, dim).double()
    aggregate = factor.T @ factor + std**2 * torch.eye(dim)
    return z, mean, torch.full_like(mean, 2 * math.log(std)), aggregate


def by_loops(z, mean, log_variance, weights):
    total = 0.0
    for j in range(len(z)):
        densities = [
            Normal(m, (v / 2).exp()).log_prob(z[j]).exp()
            for m, v in zip(mean, log_variance, strict=True)
        ]
        joint = sum(w * d.prod() for w, d in zip(weights[j], densities, strict=True))
        marginals = [
            sum(w * d[k] for w, d in zip(weights[j], densities, strict=True))
            for k in range(z.shape[1])
        ]
        total += math.log(joint) - sum(map(math.log, marginals))
    return total / len(z)


@pytest.mark.parametrize("data_size", [None, 7, 1000])
def test_it_is_the_double_loop(data_size):
    z, mean = torch.randn(2, 7, 3).double()
    log_variance = torch.randn(7, 3).double()
    weights = stratified_weights(7, data_size) if data_size else torch.full((7, 7), 1 / 7)
    expected = by_loops(z, mean, log_variance, weights.tolist())
    estimate = total_correlation(z, mean, log_variance, data_size=data_size)
    assert estimate.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("data_size", [None, 10**6])
def test_it_approaches_that_of_a_gaussian(data_size):
    errors = []
    for n in (20, 1500):
        z, mean, log_variance, aggregate = draw_posteriors(n, 2)
        truth = 0.5 * (aggregate.diagonal().log().sum() - aggregate.logdet())
        estimate = total_correlation(z, mean, log_variance, data_size=data_size)
        errors.append((estimate - truth).abs().item())
    assert errors[1] < 0.05
    assert errors[1] < errors[0]


def test_published_constant_has_no_gradient():
    """Minibatch-weighted sampling as published, `log(1 / (N M) Σ q)`, differs by a constant."""
    z, mean, log_variance, _ = draw_posteriors(6, 3)
    log_q = Normal(mean, (log_variance / 2).exp()).log_prob(z[:, None])
    published = (log_q.sum(2).logsumexp(1) - math.log(6 * 100)).mean()
    published = published - (log_q.logsumexp(1) - math.log(6 * 100)).sum(1).mean()
    expected = total_correlation(z, mean, log_variance) + 2 * math.log(100)
    assert torch.isclose(published, expected)


def test_stratified_weights_are_unbiased():
    """Over all batches that hold image 0 first, the estimate of q averages to the data set's."""
    densities = torch.rand(5).double()
    weights = stratified_weights(3, 5).double()[0]
    batches = [(0, *rest) for rest in itertools.permutations(range(1, 5), 2)]
    estimates = torch.stack([weights @ densities[list(batch)] for batch in batches])
    assert estimates.mean().item() == pytest.approx(densities.mean().item(), rel=1e-6)


@pytest.mark.parametrize(("batch", "data_size"), [(2, 2), (2, 9), (64, 737_280)])
def test_stratified_weights(batch, data_size):
    weights = stratified_weights(batch, data_size)
    assert torch.allclose(weights.sum(1), torch.ones(batch))
    assert torch.allclose(weights.diagonal(), torch.tensor(1 / data_size))
    assert (weights > 0).all()


def test_gradients_reach_all_three():
    tensors = [tensor.requires_grad_() for tensor in draw_posteriors(5, 2)[:3]]
    for data_size in (None, 50):
        assert torch.autograd.gradcheck(
            lambda *each, size=data_size: total_correlation(*each, data_size=size), tensors
        )


def test_bad_input():
    z = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"\(N, K\), got \(4, 2\), \(3, 2\), \(4, 2\)"):
        total_correlation(z, z[:3], z)
    with pytest.raises(ValueError, match="a batch of 4 and 3 images"):
        total_correlation(z, z, z, data_size=3)
    with pytest.raises(ValueError, match="a batch of 1 and 3 images"):
        total_correlation(z[:1], z[:1], z[:1], data_size=3)
