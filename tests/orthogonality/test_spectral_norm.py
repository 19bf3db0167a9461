import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from disentangle.orthogonality import SpectralNorm
from disentangle.orthogonality.spectral_norm import (
    LargestSingularValue,
    largest_singular_vector,
    power_step,
)

few = settings(max_examples=15, deadline=None, derandomize=True)
sizes = st.tuples(st.integers(1, 9), st.integers(1, 20))


def make_linear(rows=6, columns=20, dtype=torch.float32):
    linear = nn.Linear(columns, rows, bias=False).to(dtype)
    return parametrize.register_parametrization(linear, "weight", SpectralNorm(linear.weight))


def free(module):
    return module.parametrizations.weight.original


def vector(module):
    return module.parametrizations.weight[0].sigma.u


def norm(matrix):
    return torch.linalg.matrix_norm(matrix.detach().double().flatten(1), ord=2).item()


# The largest singular value


@few
@given(sizes, st.integers(0, 2**31))
def test_the_vector_is_that_of_the_largest_singular_value(size, seed):
    torch.manual_seed(seed)
    M = torch.randn(3, *size)
    u = largest_singular_vector(M)
    assert u.shape == (3, size[0])
    torch.testing.assert_close(u.norm(dim=1), torch.ones(3))
    expected = torch.linalg.matrix_norm(M, ord=2)
    torch.testing.assert_close((M.mT @ u[..., None]).norm(dim=(1, 2)), expected)


@few
@given(sizes, st.integers(0, 2**31))
def test_power_iteration_rises_to_the_largest_singular_value(size, seed):
    torch.manual_seed(seed)
    M, u = torch.randn(size, dtype=torch.float64), torch.randn(size[0], dtype=torch.float64)
    values = []
    for _ in range(20):
        u = power_step(M, u)
        values.append((M.mT @ u).norm().item())
    assert values == pytest.approx(sorted(values))
    assert values[-1] <= norm(M) * (1 + 1e-9)
    for _ in range(500):
        u = power_step(M, u)
    assert (M.mT @ u).norm().item() == pytest.approx(norm(M), rel=5e-3)


def test_zero_does_not_lose_the_vector():
    u = largest_singular_vector(torch.randn(4, 7))
    assert torch.allclose(power_step(torch.zeros(4, 7), u), u)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e10, 1e30])
def test_the_size_of_a_weight_does_not_matter(scale):
    # float32 has neither the squares of these numbers nor, with 1e-30 and 1e30, their products.
    M = torch.randn(4, 7)
    tracker = LargestSingularValue(rows=4)
    tracker.fit(scale * M)
    for _ in range(20):
        sigma = tracker(scale * M)
    assert sigma.item() == pytest.approx(scale * norm(M), rel=1e-5)
    assert tracker.u.norm().item() == pytest.approx(1, rel=1e-6)


def test_the_length_of_the_vector_does_not_matter():
    M = torch.randn(4, 7)
    tracker = LargestSingularValue(rows=4).eval()
    tracker.fit(M)
    tracker.u.mul_(0.3)
    assert tracker(M).item() == pytest.approx(norm(M), rel=1e-6)


# The parametrization


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_weight_has_norm_one(dtype):
    linear = make_linear(dtype=dtype)
    assert linear.weight.dtype == dtype
    assert norm(linear.weight) == pytest.approx(1, rel=max(torch.finfo(dtype).eps, 1e-6))
    torch.testing.assert_close(norm(free(linear)) * linear.weight, free(linear), rtol=1e-2, atol=0)


def test_a_weight_that_is_assigned_is_divided_by_its_own_norm():
    linear, weight = make_linear(), torch.randn(6, 20)
    linear.weight = weight
    torch.testing.assert_close(linear.weight, weight / norm(weight))
    assert torch.equal(free(linear), weight)


@pytest.mark.parametrize("entry", [0.0, torch.nan, torch.inf])
def test_a_weight_without_a_norm_to_divide_by_is_refused(entry):
    linear = make_linear()
    with pytest.raises(ValueError, match=r"shape \(6, 20\) that is zero or not finite"):
        linear.weight = torch.full((6, 20), entry)


def test_zero_in_training_gives_zero_and_comes_back():
    linear = make_linear()
    with torch.no_grad():
        free(linear).zero_()
    assert not linear.weight.any()
    linear.weight.sum().backward()
    assert free(linear).grad.isfinite().all()
    with torch.no_grad():
        free(linear).normal_()
    for _ in range(300):
        weight = linear.weight
    assert norm(weight) == pytest.approx(1, rel=1e-3)


def test_training_keeps_the_norm_near_one():
    linear = make_linear(16, 40)
    optimizer, target = Adam(linear.parameters(), lr=1e-3), torch.randn(16, 40) / 4
    before = free(linear).detach().clone()
    norms = []
    for _ in range(200):
        optimizer.zero_grad()
        weight = linear.weight
        (weight - target).square().sum().backward()
        optimizer.step()
        norms.append(norm(weight))
    assert min(norms) > 1 - 1e-5
    assert max(norms) < 1.2
    change = (free(linear) - before).norm() / before.norm()
    assert change > 0.3


def test_only_a_pass_that_trains_moves_the_vector():
    linear = make_linear()
    with torch.no_grad():
        free(linear).add_(torch.randn(6, 20))
    before = vector(linear).clone()
    with torch.no_grad():
        linear(torch.randn(2, 20))
    linear.eval()(torch.randn(2, 20))
    assert torch.equal(vector(linear), before)
    linear.train()(torch.randn(2, 20))
    assert not torch.equal(vector(linear), before)


def test_two_passes_before_one_backward():
    linear, inputs = make_linear(), torch.randn(3, 20)
    (linear(inputs) + linear(inputs)).sum().backward()
    linear.eval()
    loss = linear(inputs).sum()
    linear.train()(inputs)
    loss.backward()
    assert free(linear).grad.isfinite().all()


def test_the_gradient_passes_gradcheck_and_is_at_a_right_angle():
    linear = make_linear(3, 5, dtype=torch.float64).eval()
    norm_ = linear.parametrizations.weight[0]
    assert torch.autograd.gradcheck(norm_, [free(linear).detach().clone().requires_grad_()])
    (linear.weight * torch.randn(3, 5)).sum().backward()
    assert abs((free(linear).grad * free(linear)).sum()) < 1e-12


def test_state_dict_round_trip_is_bitwise():
    linear, twin = make_linear(), make_linear()
    with torch.no_grad():
        free(linear).add_(torch.randn(6, 20))
    linear(torch.randn(2, 20))
    twin.load_state_dict(linear.state_dict())
    assert torch.equal(twin.eval().weight, linear.eval().weight)
    assert torch.equal(copy.deepcopy(linear).weight, linear.weight)


def test_a_running_average_has_norm_one():
    linear = make_linear()
    average = AveragedModel(linear, multi_avg_fn=get_ema_multi_avg_fn(0.95), use_buffers=True)
    for _ in range(100):
        with torch.no_grad():
            free(linear).add_(0.03 * torch.randn(6, 20))
        linear(torch.randn(1, 20))
        average.update_parameters(linear)
    assert vector(average.module).norm() < 0.999  # which torch's would divide by, twice
    assert norm(average.module.eval().weight) == pytest.approx(1, abs=0.02)


def test_autocast_does_not_round_sigma():
    linear = make_linear(64, 200).eval()
    exact = linear.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(linear.weight, exact)


def test_shapes_are_known_without_values():
    with torch.device("meta"):
        assert make_linear().weight.shape == (6, 20)
