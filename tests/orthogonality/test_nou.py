"""The nearest orthogonal update, alone and around the steps of optimizers."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD, Adam, AdamW

from disentangle.orthogonality import (
    SkewOrthogonalConv2d,
    as_matrix,
    attach,
    constrain_weight,
    nearest_orthogonal_update,
    resolve_parameters,
)
from disentangle.orthogonality.nou import Step, kept_share, orthogonalise_updates_
from tests.orthogonality.test_attach import NAMES, Network, backward, make_training, weights_of
from tests.orthogonality.test_techniques import RefuseToWait, needs_fake_gpu

few = settings(max_examples=40, deadline=None, derandomize=True)
SHAPES = [(5, 9), (9, 5), (4, 3, 3, 3), (64, 27), (8, 2, 1, 1)]


def draw(shape, seed, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def tolerance(weight, update):
    """Return the relative error of an update to allow, since the weight is rounded to its dtype."""
    if weight.dtype == torch.float64:
        return 1e-5
    return 1e-5 + 10 * torch.finfo(weight.dtype).eps * (weight.norm() / update.norm()).item()


def orthogonality_error(update):
    """Return the largest entry of `|UUᵀ − I|` for an update scaled to rows or columns of norm 1."""
    U = as_matrix(update).double()
    U = U if U.shape[0] <= U.shape[1] else U.mT
    U = U * len(U) ** 0.5 / U.norm()
    return (U @ U.mT - torch.eye(len(U), dtype=U.dtype)).abs().max().item()


def polar_of(update):
    U, S, Vh = torch.linalg.svd(as_matrix(update).double(), full_matrices=False)
    return ((U * (1e-12 * S[0] < S)) @ Vh).reshape(update.shape)


# The function


@few
@given(st.integers(0, 2**31), st.sampled_from(SHAPES), st.sampled_from([1.0, 0.9]))
def test_the_update_becomes_its_polar_factor_at_its_own_length(seed, shape, kept):
    before, update = draw(shape, seed), draw(shape, seed + 1, scale=1e-3)
    after = kept * before + update
    result = nearest_orthogonal_update(before, after, kept)
    polar = polar_of(update)
    expected = kept * before + polar * update.norm() / polar.norm()
    torch.testing.assert_close(result, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("rate", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("shape", [(64, 27), (6, 8192)])
def test_rounding_is_no_direction(shape, rate):
    """In float32 the weight rounds an update of low rank to one of full rank."""
    before = draw(shape, 0, torch.float32)
    update = rate * draw((shape[0], 3), 1) @ draw((3, shape[1]), 2) / 30
    after = (before + update).float()
    moved = nearest_orthogonal_update(before, after).double() - before.double()
    rows = torch.linalg.svd(update, full_matrices=False)[2][:3]
    inside = (moved @ rows.mT).norm() / moved.norm()
    sigmas = torch.linalg.svdvals(moved)
    floor = torch.finfo(torch.float32).eps * before.norm()
    assert sigmas[2] > floor > sigmas[3]
    assert inside > 0.98
    # Of what rounding left the made update has more outside.
    raw = after.double() - before.double()
    everything = polar_of(raw)
    assert inside > 1.3 * (everything @ rows.mT).norm() / everything.norm()


def test_several_are_as_each():
    shapes = [*SHAPES, *SHAPES, (3, 2**15), (3, 2**15)]
    befores = [draw(shape, i, torch.float32) for i, shape in enumerate(shapes)]
    # Of the first an update below rounding, of the second one that is not finite.
    scales = [1e-12, torch.inf, *(10.0**-i for i in range(len(shapes) - 2))]
    afters = [W + draw(W.shape, 99, W.dtype, s) for W, s in zip(befores, scales, strict=True)]
    kept = [1.0, 0.5] * (len(shapes) // 2)
    untouched = [tensor.clone() for tensor in (*befores, *afters)]
    expected = list(map(nearest_orthogonal_update, befores, afters, kept))
    assert all(map(torch.equal, untouched, (*befores, *afters)))
    orthogonalise_updates_([Step(W, d) for W, d in zip(befores, kept, strict=True)], afters)
    for result, one in zip(afters, expected, strict=True):
        torch.testing.assert_close(result, one, atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kept", [1.0, 0.9, torch.tensor(0.9, dtype=torch.float64)])
def test_where_there_is_no_update_the_weight_stays_as_the_optimizer_left_it(dtype, kept):
    before = draw((4, 6), 0, dtype)
    decayed = kept * before
    spoilt, overflown = decayed.clone(), decayed.clone()
    spoilt[1, 2], overflown[0, 0] = torch.nan, torch.inf
    rounded = decayed.nextafter(2 * decayed)
    for after in (before, decayed, rounded, spoilt, overflown):
        result = nearest_orthogonal_update(before, after, kept)
        torch.testing.assert_close(result, after, atol=0, rtol=0, equal_nan=True)


def test_a_weight_of_zero():
    update = draw((4, 6), 0, torch.float32, scale=1e-20)
    moved = nearest_orthogonal_update(torch.zeros(4, 6), update)
    assert orthogonality_error(moved) < 1e-6
    torch.testing.assert_close(moved.norm(), update.norm())


def test_what_it_expects():
    ones = torch.ones(3, 4)
    for kind in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match=f"before must be float32 or float64.*got {kind}"):
            nearest_orthogonal_update(ones.to(kind), ones.to(kind))
    with pytest.raises(ValueError, match=r"same shape and dtype, got \(3, 4\) .*and \(4, 3\)"):
        nearest_orthogonal_update(ones, ones.mT)
    with pytest.raises(ValueError, match=r"got .*float32 and .*float64"):
        nearest_orthogonal_update(ones, ones.double())
    with pytest.raises(ValueError, match=r"at least 2 dimensions.*got shape \(3,\)"):
        nearest_orthogonal_update(ones[:, 0], ones[:, 0])
    with pytest.raises(ValueError, match=r"before must be a dense tensor"):
        nearest_orthogonal_update(ones.to_sparse(), ones.to_sparse())


# Around the steps of optimizers

OPTIMIZERS = {
    "sgd": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "sgd, foreach": lambda p: SGD(p, lr=0.1, momentum=0.9, foreach=True),
    "sgd, fused": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adam": lambda p: Adam(p, lr=1e-2, weight_decay=0.1),
    "adam, foreach": lambda p: Adam(p, lr=1e-2, foreach=True, maximize=True),
    "adam, fused": lambda p: Adam(p, lr=1e-2, fused=True),
    "adam, tensor rate": lambda p: Adam(
        p, lr=torch.tensor(1e-2), weight_decay=0.5, decoupled_weight_decay=True
    ),
    "adamw": lambda p: AdamW(p, lr=1e-2, weight_decay=0.5),
    "adamw, foreach": lambda p: AdamW(p, lr=1e-2, weight_decay=0.5, foreach=True),
    "adamw, fused": lambda p: AdamW(p, lr=1e-2, weight_decay=0.5, fused=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-2, momentum=0.5),
    "nadam": lambda p: optim.NAdam(p, lr=1e-2, weight_decay=0.5, decoupled_weight_decay=True),
    "radam": lambda p: optim.RAdam(p, lr=1e-1, weight_decay=0.5, decoupled_weight_decay=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=1e-2),
    "adafactor": lambda p: optim.Adafactor(p, lr=1e-2, weight_decay=0.5),
    "rprop": lambda p: optim.Rprop(p, lr=1e-2),
}
if hasattr(optim, "Muon"):
    OPTIMIZERS["muon"] = lambda p: optim.Muon(p, lr=1e-2, weight_decay=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 40), (64, 27)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_update_that_is_made_is_orthogonal_and_as_long(name, shape, dtype):
    weight = nn.Parameter(draw(shape, 0, dtype))
    optimizer = OPTIMIZERS[name]([weight])
    attach(optimizer, {"weight": weight}, ["nou"])
    for step in range(4):
        before = weight.detach().clone()
        weight.grad = draw(shape, 10 + step, dtype)
        # The optimizer's own step from here.
        twin = nn.Parameter(before.clone())
        plain = OPTIMIZERS[name]([twin])
        plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        twin.grad = weight.grad.clone()
        plain.step()
        optimizer.step()
        kept = kept_share(plain, plain.param_groups[0])
        own, made = (W.detach().double() - (kept * before).double() for W in (twin, weight))
        bound = tolerance(before, own)
        assert made.norm().item() == pytest.approx(own.norm().item(), rel=bound)
        assert orthogonality_error(made) < bound
        # The nearest one: no other of its length has a larger product with the optimizer's own.
        polar = polar_of(own)
        expected = polar * own.norm() / polar.norm()
        assert (made - expected).norm() < 10 * bound * own.norm()
    assert orthogonality_error(own) > 0.1  # which is not so without


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adafactor"])
def test_rows_and_columns_without_gradient_are_not_updated(name):
    weight = nn.Parameter(torch.zeros(8, 12, dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([weight])
    # Adam scales up what rounding left of zero, where it is decayed through the gradient.
    optimizer.param_groups[0]["weight_decay"] = 0
    attach(optimizer, {"weight": weight}, ["nou"])
    for step in range(3):
        gradient = torch.zeros(8, 12, dtype=torch.float64)
        gradient[2:6, 3:9] = draw((4, 6), step)
        weight.grad = gradient
        optimizer.step()
    moved = weight.detach().clone()
    moved[2:6, 3:9] = 0
    assert moved.abs().max() < 1e-12 < weight.abs().max()


def test_directions_without_gradient_are_not_updated_under_sgd():
    weight = nn.Parameter(draw((8, 12), 0))
    start = weight.detach().clone()
    optimizer = SGD([weight], lr=1e-3, momentum=0.9)
    attach(optimizer, {"weight": weight}, ["nou"])
    rows = torch.linalg.qr(draw((12, 3), 1))[0].mT
    for step in range(5):
        weight.grad = draw((8, 3), step + 2) @ rows
        optimizer.step()
    moved = weight.detach() - start
    torch.testing.assert_close(moved @ rows.mT @ rows, moved, atol=1e-12, rtol=0)
    assert torch.linalg.matrix_rank(moved, atol=1e-12) == 3


def test_only_the_targets_are_changed():
    network, optimizer = make_training(lambda p: Adam(p, lr=0.1), ["nou"])
    plain, plain_optimizer = make_training(lambda p: Adam(p, lr=0.1), [])
    for one, its in ((network, optimizer), (plain, plain_optimizer)):
        backward(one)
        its.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name)) == (name not in NAMES)
        assert torch.equal(parameter.grad, plain.get_parameter(name).grad)
    assert len(optimizer.param_groups) == 1


def test_a_parameter_without_gradient_is_left_alone():
    network, optimizer = make_training(lambda p: AdamW(p, lr=0.1, weight_decay=0.5), ["nou"])
    before = weights_of(network)
    network.conv.weight.grad = torch.ones_like(network.conv.weight)
    optimizer.step()
    assert list(map(torch.equal, before, weights_of(network))) == [False] + [True] * 5


def test_decay_is_kept_without_a_gradient():
    weight = nn.Parameter(draw((3, 5), 0))
    start = weight.detach().clone()
    optimizer = AdamW([weight], lr=0.1, weight_decay=0.5)
    attach(optimizer, {"weight": weight}, ["nou"])
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), 0.95 * start)


def test_with_olr_the_decay_is_that_of_the_rate_in_use():
    weight = nn.Parameter(draw((3, 5), 0))
    start = weight.detach().clone()
    optimizer = AdamW([weight], lr=10.0, weight_decay=0.5)
    attach(optimizer, {"weight": weight}, ["nou", "olr"])
    rates = []
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    weight.grad = start + draw((3, 5), 1)
    optimizer.step()
    assert 0 < rates[0] < 10
    assert optimizer.param_groups[0]["lr"] == 10
    assert orthogonality_error(weight.detach() - (1 - 0.5 * rates[0]) * start) < 1e-9


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_a_step_that_a_gradient_scaler_skips_stays_skipped(kind, fused):
    def make_optimizer(parameters):
        return kind(parameters, lr=0.1, weight_decay=0.5, fused=fused)

    network, optimizer = make_training(make_optimizer, ["nou"])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights_of(network)
    for overflow in (True, False):
        network.zero_grad()
        backward_scaled(network, scaler, overflow)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert all(map(torch.equal, before, weights_of(network))) == overflow
    plain, plain_optimizer = make_training(make_optimizer, ["nou"])
    backward(plain)
    plain_optimizer.step()
    assert all(map(torch.equal, weights_of(network), weights_of(plain)))


def test_a_fused_optimizer_may_unscale_within_its_step():
    network, optimizer = make_training(lambda p: Adam(p, lr=0.1, fused=True), ["nou"])
    plain, plain_optimizer = make_training(lambda p: Adam(p, lr=0.1, fused=True), ["nou"])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    backward_scaled(network, scaler, overflow=False)
    scaler.step(optimizer)
    backward(plain)
    plain_optimizer.step()
    torch.testing.assert_close(weights_of(network), weights_of(plain))


def backward_scaled(network, scaler, overflow):
    backward(network)
    for parameter in network.parameters():
        parameter.grad *= scaler.scale(torch.ones(()))
    if overflow:
        network.conv.weight.grad[0] = torch.inf


def test_a_step_on_an_overflow_is_as_the_optimizer_made_it():
    network, optimizer = make_training(lambda p: SGD(p, lr=0.1), ["nou"])
    plain, plain_optimizer = make_training(lambda p: SGD(p, lr=0.1), [])
    for one, its in ((network, optimizer), (plain, plain_optimizer)):
        backward(one)
        one.conv.weight.grad[0] = torch.nan
        its.step()
    assert network.conv.weight[0].isnan().all()
    torch.testing.assert_close(network.conv.weight, plain.conv.weight, equal_nan=True)
    assert not torch.equal(network.up.weight, plain.up.weight)


@pytest.mark.filterwarnings("ignore:olr could not verify")
def test_a_step_that_raises_is_left_as_it_is():
    class Failing(SGD):
        def step(self, closure=None):
            super().step(closure)
            raise MemoryError

    network = Network()
    optimizer = Failing(network.parameters(), lr=0.1)
    attachment = attach(optimizer, resolve_parameters(network, NAMES), ["nou"])
    # PyTorch calls the post-hooks of SGD's own step within, and Failing's are never reached.
    plain = copy.deepcopy(network)
    backward(network)
    with pytest.raises(MemoryError):
        optimizer.step()
    assert not attachment._begun
    assert not torch.equal(network.conv.weight, plain.conv.weight)


CONSTRAINED = {
    "orthogonal": lambda: constrain_weight(nn.Linear(8, 4), "weight", "orthogonal"),
    "spectral": lambda: constrain_weight(nn.Linear(8, 4), "weight", "spectral"),
    "skew": lambda: SkewOrthogonalConv2d(2, 4, kernel_size=3),
}


@pytest.mark.parametrize("kind", CONSTRAINED)
def test_on_a_constrained_weight_it_acts_on_the_free_parameter(kind):
    layer = CONSTRAINED[kind]()
    (free,) = resolve_parameters(layer, ["weight"]).values()
    optimizer = Adam(layer.parameters(), lr=1e-2)
    attach(optimizer, {"weight": free}, ["nou"])
    start = free.detach().clone()
    inputs = torch.randn(5, 2, 4, 4) if kind == "skew" else torch.randn(5, 8)
    layer(inputs).square().mul(torch.randn(layer(inputs).shape)).sum().backward()
    optimizer.step()
    made = free.detach() - start
    assert orthogonality_error(made) < tolerance(start, made)
    if kind == "orthogonal":
        torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(4), atol=1e-6, rtol=0)


def test_channels_last():
    network, optimizer = make_training(lambda p: Adam(p, lr=0.1), ["nou"], torch.float64)
    twin, twin_optimizer = make_training(lambda p: Adam(p, lr=0.1), [], torch.float64)
    twin.to(memory_format=torch.channels_last)
    attach(twin_optimizer, resolve_parameters(twin, NAMES), ["nou"])
    for one, its in ((network, optimizer), (twin, twin_optimizer)):
        backward(one)
        its.step()
    assert twin.conv.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(weights_of(network), weights_of(twin), atol=1e-9, rtol=0)


# What it cannot work with


class AdamWScheduleFree(Adam):
    """By the name of the class in the package `schedulefree`."""


@pytest.mark.parametrize("kind", [optim.ASGD, AdamWScheduleFree])
def test_optimizers_that_keep_copies_of_the_weights(kind):
    network = Network()
    parameters = resolve_parameters(network, NAMES)
    with pytest.raises(ValueError, match=f"{kind.__name__} keeps copies of the weights"):
        attach(kind(network.parameters(), lr=0.1), parameters, ["nou"])
    attach(kind(network.parameters(), lr=0.1), parameters, ["nog"])


def test_a_differentiable_step():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1, differentiable=True)
    with pytest.raises(ValueError, match="nou has no derivative: choose differentiable=False"):
        attach(optimizer, resolve_parameters(network, NAMES), ["nou"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    parameters = resolve_parameters(network, NAMES)
    attach(optimizer, parameters, ["nou"])
    network.to(dtype)
    before = weights_of(network)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ValueError, match=f"'conv.weight' must be float32 or .*got {dtype}"):
        optimizer.step()
    assert all(map(torch.equal, before, weights_of(network)))
    with pytest.raises(ValueError, match=f"'conv.weight' must be float32 or .*got {dtype}"):
        attach(SGD(network.parameters(), lr=0.1), parameters, ["nou"])


def test_nog_beside_it():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="nog and nou cannot be combined"):
        attach(optimizer, resolve_parameters(network, NAMES), ["nou", "olr", "nog"])


# Without waiting for a GPU


@needs_fake_gpu
def test_on_a_gpu_the_host_is_not_kept_waiting():
    with FakeTensorMode(), RefuseToWait():
        weights = [torch.empty(shape, device="cuda") for shape in [*SHAPES, (6, 70_000), (5, 9)]]
        rates = [1.0, torch.empty((), device="cuda"), torch.empty(())]
        steps = [Step(W, rates[i % 3]) for i, W in enumerate(weights)]
        results = [2 * weight for weight in weights]
        orthogonalise_updates_(steps, results)
        assert all(result.is_cuda for result in results)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_this_gpu_it_is_that_of_the_cpu():
    shapes = [*SHAPES, (6, 70_000), (5, 9)]
    befores = [draw(shape, i, torch.float32) for i, shape in enumerate(shapes)]
    afters = [W + draw(W.shape, 99, W.dtype, 1e-3) for W in befores]
    nearest_orthogonal_update(befores[0].cuda(), afters[0].cuda())  # makes handles of libraries
    steps = [Step(W.cuda(), 0.999) for W in befores]
    results = [after.cuda() for after in afters]
    torch.cuda.set_sync_debug_mode("error")
    try:
        orthogonalise_updates_(steps, results)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for before, after, result in zip(befores, afters, results, strict=True):
        expected = nearest_orthogonal_update(before, after, 0.999)
        torch.testing.assert_close(result.cpu(), expected, atol=1e-6, rtol=0)


def test_the_threshold_on_a_gpu_is_that_of_the_cpu(monkeypatch):
    """The iteration of a GPU suppresses the same directions."""
    from disentangle.linalg import polar

    before = draw((64, 27), 0, torch.float32)
    update = 1e-4 * draw((64, 3), 1) @ draw((3, 27), 2) / 30
    after = (before + update).float()
    expected = nearest_orthogonal_update(before, after)
    monkeypatch.setattr(polar, "_root_class", lambda matrix: polar.IteratedRoot)
    result = nearest_orthogonal_update(before, after)
    torch.testing.assert_close(result - before, expected - before, atol=1e-6, rtol=0)


def test_training_goes_on_as_if_by_hand():
    """Several steps of SGD, the update computed from the equations."""
    network, optimizer = make_training(
        lambda p: SGD(p, lr=0.5, momentum=0.9), ["nou"], torch.float64
    )
    twin = copy.deepcopy(network)
    buffers = {}
    for step in range(3):
        for one in (network, twin):
            backward(one, step)
        optimizer.step()
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                buffers[name] = 0.9 * buffers.get(name, 0) + parameter.grad
                update = buffers[name]
                if name in NAMES:
                    polar = polar_of(update)
                    update = polar * update.norm() / polar.norm()
                parameter -= 0.5 * update
    torch.testing.assert_close(weights_of(network), weights_of(twin), atol=1e-9, rtol=0)
