import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import SGD, Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils._python_dispatch import TorchDispatchMode

from disentangle.linalg import polar, polar_factor
from disentangle.orthogonality import Orthonormal

few = settings(max_examples=25, deadline=None, derandomize=True)
shapes = st.sampled_from([(6, 64), (64, 6), (5, 5), (1, 7), (4, 3, 3, 3), (9, 2, 2, 2), (3, 1)])


class Basis(nn.Module):
    def __init__(self, U):
        super().__init__()
        self.U = nn.Parameter(U)
        parametrize.register_parametrization(self, "U", Orthonormal())

    @property
    def free(self):
        return self.parametrizations.U.original


def make_basis(*shape, dtype=torch.float32):
    return Basis(torch.randn(shape, dtype=dtype))


def orthogonality_error(weight):
    """`‖Gram − I‖` on the smaller side, in float64."""
    U = weight.detach().double().flatten(1)
    U = U if U.shape[0] <= U.shape[1] else U.T
    return torch.linalg.matrix_norm(U @ U.T - torch.eye(len(U), dtype=torch.float64)).item()


@few
@given(shapes, st.sampled_from([torch.float32, torch.float64]), st.integers(0, 2**31))
def test_the_weight_is_orthonormal_wherever_the_free_parameter_is(shape, dtype, seed):
    torch.manual_seed(seed)
    basis = make_basis(*shape, dtype=dtype)
    with torch.no_grad():
        basis.free.add_(3 * torch.randn_like(basis.free))
    assert basis.U.shape == shape
    assert basis.U.dtype == dtype
    assert orthogonality_error(basis.U) <= 2e-6


@pytest.mark.parametrize(
    ("dtype", "error"), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4), (torch.float32, 1e-6)]
)
def test_low_precision_loses_its_rounding_only(dtype, error):
    basis = make_basis(6, 64, dtype=dtype)
    assert basis.U.dtype == basis.free.dtype == dtype
    assert error / 100 < orthogonality_error(basis.U) < error
    exact = polar_factor(basis.free.detach().double())
    torch.testing.assert_close(basis.U.double(), exact, atol=torch.finfo(dtype).eps / 2, rtol=0)


def test_autocast_does_not_round_the_weight():
    basis = make_basis(6, 64)
    exact = basis.U
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(basis.U, exact)


def test_an_orthonormal_weight_stays_as_it_is():
    U = nn.init.orthogonal_(torch.empty(6, 200))
    torch.testing.assert_close(Basis(U.clone()).U, U, atol=1e-6, rtol=0)


# Assignment and state


@pytest.mark.parametrize("shape", [(3, 8), (8, 3), (4, 2, 3, 3)])
def test_what_is_assigned_is_replaced_by_its_polar_factor(shape):
    basis, weight = make_basis(*shape), 5 * torch.randn(shape)
    free = basis.free
    basis.U = weight
    expected = polar_factor(weight.flatten(1)).reshape(shape)
    torch.testing.assert_close(basis.U, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(basis.free, expected)
    assert basis.free is free
    basis.U = expected
    torch.testing.assert_close(basis.U, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("entry", [0.0, torch.nan, torch.inf])
def test_what_has_no_single_nearest_matrix_is_refused(entry):
    basis = make_basis(3, 8)
    before = basis.free.detach().clone()
    weight = torch.randn(3, 8)
    weight[1] = entry
    rank = "2" if entry == 0 else "nan"
    with pytest.raises(ValueError, match=rf"rank 3 as a matrix of \(3, 8\).* got rank {rank}"):
        basis.U = weight
    with pytest.raises(ValueError, match=rf"got rank {rank}"):
        Basis(weight)
    assert torch.equal(basis.free, before)


def test_state_dict_round_trip_is_bitwise():
    basis, twin = make_basis(6, 64), make_basis(6, 64)
    with torch.no_grad():
        basis.free.add_(0.5 * torch.randn(6, 64))
    assert list(basis.state_dict()) == ["parametrizations.U.original"]
    twin.load_state_dict(basis.state_dict())
    assert torch.equal(twin.U, basis.U)
    assert torch.equal(copy.deepcopy(basis).U, basis.U)


def test_shapes_are_known_without_values():
    with torch.device("meta"):
        basis = make_basis(6, 64)
    assert basis.U.is_meta
    assert basis.U.shape == (6, 64)


# Training


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (3, 3), (2, 3, 2, 1)])
@pytest.mark.parametrize("orthonormal", [True, False])
def test_the_gradient_passes_gradcheck(shape, orthonormal):
    free = torch.randn(shape, dtype=torch.float64)
    if orthonormal:  # all singular values are equal
        free = polar_factor(free.flatten(1)).reshape(shape)
    assert torch.autograd.gradcheck(Orthonormal(), [free.requires_grad_()])


@few
@given(shapes, st.integers(0, 2**31))
def test_the_gradient_is_at_a_right_angle_to_the_free_parameter(shape, seed):
    torch.manual_seed(seed)
    basis = make_basis(*shape)
    (basis.U * torch.randn(shape)).sum().backward()
    cosine = (basis.free.grad * basis.free).sum() / basis.free.grad.norm() / basis.free.norm()
    assert shape == (3, 1) or abs(cosine) < 1e-5 or basis.free.grad.norm() < 1e-5


class Record(TorchDispatchMode):
    """The names of the operations that are made."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__.partition(".")[0])
        return func(*args, **(kwargs or {}))


def test_a_step_takes_no_more_than_two_polar_factors():
    basis = make_basis(6, 1024)
    with Record() as alone:
        polar_factor(basis.free.detach())
    with Record() as step:
        basis.U.sum().backward()
    assert step.names.count("_linalg_eigh") == alone.names.count("_linalg_eigh") == 1
    assert not {"_linalg_svd", "linalg_qr", "linalg_inv_ex", "_local_scalar_dense"} & set(
        step.names
    )


@pytest.mark.slow
def test_orthonormal_through_ten_thousand_steps_of_adam(monkeypatch):
    monkeypatch.setattr(polar, "_SMALL", 0)  # by the Gram matrix, as large bases
    # Onto a target subspace, under noise that never lets it rest.
    basis, target = make_basis(6, 64), torch.linalg.qr(torch.randn(64, 6))[0]
    optimizer = Adam(basis.parameters(), lr=1e-2, fused=True)
    losses, errors, conditions = [], [], []
    for step in range(10_001):
        U = basis.U
        loss = 6 - (U @ target).square().sum()
        (gradient,) = torch.autograd.grad(loss, basis.free)
        basis.free.grad = gradient + 0.1 * torch.randn(6, 64)
        optimizer.step()
        if step % 100 == 0:
            losses.append(loss.item())
            errors.append(orthogonality_error(U))
            sigmas = torch.linalg.svdvals(basis.free.detach())
            conditions.append((sigmas[0] / sigmas[-1]).item())
    assert max(errors) <= 1e-5
    assert losses[0] > 4
    assert losses[-1] < 0.2
    assert max(conditions) < 3


def test_sgd_only_lengthens_the_free_parameter():
    basis = make_basis(4, 20, dtype=torch.float64)
    optimizer = SGD(basis.parameters(), lr=0.5)
    norms = []
    for _ in range(50):
        optimizer.zero_grad()
        (basis.U * torch.randn(4, 20)).sum().backward()
        optimizer.step()
        norms.append(basis.free.norm().item())
    assert norms == sorted(norms)
    assert norms[-1] > 1.2 * norms[0]


def test_the_average_of_free_parameters_gives_an_orthonormal_weight():
    basis = make_basis(6, 64)
    average = AveragedModel(basis, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    plain = basis.U.detach().clone()
    for _ in range(20):
        with torch.no_grad():
            basis.free.add_(0.1 * torch.randn(6, 64))
        average.update_parameters(basis)
        plain.lerp_(basis.U.detach(), 0.1)
    assert orthogonality_error(average.module.U) < 1e-6
    assert orthogonality_error(plain) > 0.1  # what an average of the weights themselves would be
    assert not torch.equal(average.module.U, basis.U)
