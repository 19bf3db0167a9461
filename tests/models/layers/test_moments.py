import pytest
import torch

from disentangle.models.layers.moment_map import map_by_moments
from disentangle.models.layers.moments import joint_moments, moments, pooled_moments
from disentangle.models.layers.principal_axes import principal_axes


def make_samples(m, c, dtype=torch.float64):
    return torch.randn(m, c, dtype=dtype) @ torch.randn(c, c, dtype=dtype) + 3


def affine(mean, covariance, scale):
    """Some map that depends on everything."""
    W = scale * torch.linalg.inv(covariance + torch.eye(len(mean)).to(mean))
    return W, mean.square() - W @ mean


def test_moments_are_those_of_torch():
    samples = make_samples(20, 3)
    mean, covariance = moments(samples)
    torch.testing.assert_close(mean, samples.mean(0))
    torch.testing.assert_close(covariance, torch.cov(samples.T, correction=0))


def test_each_matrix_of_a_batch_has_its_own():
    samples = torch.randn(4, 10, 3)
    means, covariances = moments(samples)
    assert covariances.shape == (4, 3, 3)
    for one, mean, covariance in zip(samples, means, covariances, strict=True):
        torch.testing.assert_close((mean, covariance), moments(one))


def test_images_are_pooled():
    samples = make_samples(25, 3)
    torch.testing.assert_close(pooled_moments(samples.view(5, 5, 3)), moments(samples))


def test_a_large_mean_of_images_costs_no_digits():
    centred = make_samples(1000, 3)
    means = torch.arange(10.0).view(10, 1, 1).double()
    expected = moments((centred.view(10, 100, 3) + means).flatten(0, 1))[1]
    _, covariance = pooled_moments((centred.view(10, 100, 3) + means + 1e4).float())
    assert (covariance - expected).norm() < 1e-3 * expected.norm()


def test_a_large_mean_costs_no_digits():
    centred = make_samples(1000, 3)
    _, covariance = moments((centred + 1e4).float())
    expected = torch.cov(centred.T, correction=0)
    assert (covariance - expected).norm() < 1e-3 * expected.norm()


def test_one_process_has_the_joint_moments():
    mean, covariance = moments(make_samples(5, 2))
    joint = joint_moments(mean, covariance, 5)
    assert joint[0] is mean
    assert joint[1] is covariance


ORDERS = {"channels last": lambda x: x, "channels first": lambda x: x.mT.contiguous().mT}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("gradient_order", ORDERS)
def test_the_map_is_what_autograd_makes_of_it(order, gradient_order):
    samples, scale = make_samples(20, 3).view(4, 5, 3), torch.randn(3, 1).double()
    G = ORDERS[gradient_order](torch.randn(4, 5, 3).double())
    results = []
    for fused in (True, False):
        leaves = [ORDERS[order](samples).clone().requires_grad_(), scale.clone().requires_grad_()]
        if fused:
            y = map_by_moments(leaves[0], affine, leaves[1])
            assert y.stride() == leaves[0].stride()
        else:
            W, b = affine(*moments(leaves[0].flatten(0, 1)), leaves[1])
            y = leaves[0] @ W.T + b
        results.append((y, *torch.autograd.grad(y.pow(3), leaves, G)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("samples_need", [True, False])
@pytest.mark.parametrize("scale_needs", [True, False])
def test_gradients_of_what_needs_them(samples_need, scale_needs):
    samples = make_samples(5, 2)[None].requires_grad_(samples_need)
    scale = torch.randn(2, 1).double().requires_grad_(scale_needs)
    if not (samples_need or scale_needs):
        assert not map_by_moments(samples, affine, scale).requires_grad
        return
    map_by_moments(samples, affine, scale).pow(2).sum().backward()
    assert (samples.grad is not None) == samples_need
    assert (scale.grad is not None) == scale_needs


def test_gradient_of_the_map():
    def mapped(samples, scale):
        return map_by_moments(samples, affine, scale)

    arguments = (
        make_samples(6, 3).view(2, 3, 3).requires_grad_(),
        torch.randn(3, 1).double().requires_grad_(),
    )
    assert torch.autograd.gradcheck(mapped, arguments)


def test_backward_twice_and_no_second_derivative():
    samples = make_samples(6, 3).view(2, 3, 3).requires_grad_()
    y = map_by_moments(samples, affine, torch.ones(3, 1).double()).pow(2).sum()
    first, second = (torch.autograd.grad(y, samples, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (gradient,) = torch.autograd.grad(y, samples, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_principal_axes_turn_a_matrix_to_its_diagonal():
    A = torch.cov(torch.randn(2, 5, 30).double().flatten(0, 1))[:5, :5]
    V = principal_axes(A)
    turned = V.T @ A @ V
    torch.testing.assert_close(turned, turned.diagonal().diag())
    assert (turned.diagonal().diff() > 0).all()
    assert torch.allclose(V.T @ V, torch.eye(5).double())
    largest = V.abs().argmax(0)
    assert (V[largest, torch.arange(5)] > 0).all()


def test_gradient_of_principal_axes():
    A = torch.randn(2, 4, 4).double()
    assert torch.autograd.gradcheck(
        lambda A: principal_axes(A + A.mT), ((A + A.mT).requires_grad_(),)
    )


def test_equal_eigenvalues_have_a_finite_gradient():
    A = torch.tensor([1.0, 1.0, 3.0]).double().diag().requires_grad_()
    G = torch.randn(3, 3).double()
    (gradient,) = torch.autograd.grad(principal_axes(A), A, G)
    assert gradient.isfinite().all()
    assert gradient[0, 1] == 0
    assert gradient[0, 2] != 0
