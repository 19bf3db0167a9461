import numpy as np
import pytest
import torch

from disentangle.losses.dip_vae import code_covariance, covariance_penalty


def test_covariance_of_means():
    mean = torch.randn(20, 4).double()
    expected = np.cov(mean.numpy(), rowvar=False, bias=True)
    np.testing.assert_allclose(code_covariance(mean), expected)


def test_covariance_of_samples():
    mean, log_variance = torch.randn(50, 3).double(), torch.randn(50, 3).double()
    noise = torch.randn(4000, 50, 3).double()
    samples = (mean + noise * (log_variance / 2).exp()).flatten(0, 1)
    expected = np.cov(samples.numpy(), rowvar=False)
    np.testing.assert_allclose(code_covariance(mean, log_variance), expected, atol=0.05)


def test_penalty_by_hand():
    covariance = torch.randn(4, 4).double()
    expected = sum(
        7 * (covariance[i, j] - 1) ** 2 if i == j else 3 * covariance[i, j] ** 2
        for i in range(4)
        for j in range(4)
    )
    penalty = covariance_penalty(covariance, off_diagonal_weight=3, diagonal_weight=7)
    assert torch.isclose(penalty, expected)


@pytest.mark.parametrize("weights", [(1, 0), (0, 1)])
def test_each_weight_acts_on_its_part_only(weights):
    off, on = weights
    diagonal, mixed = torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    for covariance, seen in ((diagonal, on * 2.0), (mixed, off * 0.5), (torch.eye(2), 0.0)):
        penalty = covariance_penalty(covariance, off_diagonal_weight=off, diagonal_weight=on)
        assert penalty.item() == seen
