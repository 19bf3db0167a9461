import math

import numpy as np
import pytest
import torch

from disentangle.losses.factor_vae import density_ratio, permute_codes, tell_apart_loss
from disentangle.models.code_discriminator import CodeDiscriminator


def test_every_dimension_is_permuted_on_its_own():
    codes = torch.randn(2000, 1).repeat(1, 4)
    permuted = permute_codes(codes, torch.rand(2000, 4))
    correlations = np.corrcoef(permuted.numpy(), rowvar=False)[~np.eye(4, dtype=bool)]
    assert np.abs(correlations).max() < 0.1
    assert torch.equal(permuted.sort(0).values, codes.sort(0).values)


def test_the_ratio_is_that_of_the_probabilities():
    logits = torch.randn(6, 2)
    probabilities = logits.softmax(1)
    expected = (probabilities[:, 0] / (1 - probabilities[:, 0])).log().mean()
    assert torch.isclose(density_ratio(logits), expected, atol=1e-6)


def test_the_discriminator_minimises_the_cross_entropy():
    real, permuted = torch.randn(2, 6, 2)
    p_real, p_permuted = real.softmax(1)[:, 0], permuted.softmax(1)[:, 1]
    expected = -0.5 * (p_real.log().mean() + p_permuted.log().mean())
    assert torch.isclose(tell_apart_loss(real, permuted), expected)


def test_a_trained_discriminator_finds_the_total_correlation():
    correlation = 0.8
    truth = -0.5 * math.log(1 - correlation**2)
    discriminator = CodeDiscriminator(code_dim=2, hidden_dim=32, depth=2)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3)

    def draw(n):
        a, b = torch.randn(2, n)
        return torch.stack([a, correlation * a + math.sqrt(1 - correlation**2) * b], dim=1)

    for _ in range(400):
        codes = draw(512)
        permuted = permute_codes(codes, torch.rand(512, 2))
        loss = tell_apart_loss(discriminator(codes), discriminator(permuted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert density_ratio(discriminator(draw(5000))).item() == pytest.approx(truth, abs=0.12)


def test_the_discriminator_is_the_published_one():
    network = CodeDiscriminator(code_dim=10)
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim == 2]
    assert shapes == [(1000, 10), *[(1000, 1000)] * 5, (2, 1000)]


def test_bad_input():
    with pytest.raises(ValueError, match=r"got \(4, 2\) and \(4,\)"):
        permute_codes(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(ValueError, match=r"\(N, 3\), got \(4, 2\)"):
        CodeDiscriminator(code_dim=3)(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        CodeDiscriminator(code_dim=3, depth=0)
