import copy
import warnings
from typing import get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from disentangle.orthogonality import (
    OPTIMIZER_TECHNIQUES,
    Attachment,
    Technique,
    as_matrix,
    attach,
    nearest_orthogonal_gradient,
    optimal_learning_rate,
    orthogonal_loss,
    resolve_parameters,
)

few = settings(max_examples=40, deadline=None, derandomize=True)


class Network(nn.Module):
    """One layer of each kind."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=3, padding=1)
        self.up = nn.ConvTranspose2d(4, 2, kernel_size=2, stride=2)
        self.linear = nn.Linear(2 * 8 * 8, 5)

    def forward(self, images):
        return self.linear(self.up(self.conv(images)).relu().flatten(1))


NAMES = ("conv.weight", "up.weight", "linear.weight")


def make_batch(seed, size=4):
    return torch.randn(size, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


def train(network, optimizer, steps, *, scheduler=None, first=0):
    """Some steps; the learning rates of all groups after each, as numbers."""
    rates = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        network(make_batch(step)).square().mean().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    return rates


def make_training(make_optimizer, techniques=("nog", "olr")):
    torch.manual_seed(0)
    network = Network()
    optimizer = make_optimizer(network.parameters())
    attach(optimizer, resolve_parameters(network, NAMES), techniques)
    return network, optimizer


def watch_rates(optimizer, seen):
    """Appends the learning rates that each step uses to `seen`. After `attach`."""

    def record(optimizer, args, kwargs):
        seen.append([float(group["lr"]) for group in optimizer.param_groups])

    optimizer.register_step_pre_hook(record)


def weights_of(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


class CountScalars(TorchDispatchMode):
    """Counts what waits for the value of a tensor."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func is torch.ops.aten._local_scalar_dense.default
        self.calls += func is torch.ops.aten.is_nonzero.default
        return func(*args, **(kwargs or {}))


# Tensors as matrices


def test_as_matrix_flattens_all_but_the_first_dimension():
    assert as_matrix(nn.Linear(7, 5).weight).shape == (5, 7)
    assert as_matrix(nn.Conv2d(3, 8, kernel_size=(2, 5)).weight).shape == (8, 30)
    # Stored as (in, out, kh, kw).
    assert as_matrix(nn.ConvTranspose2d(3, 8, kernel_size=2).weight).shape == (3, 32)
    with pytest.raises(ValueError, match=r"at least 2 dimensions.*got shape \(4,\)"):
        as_matrix(torch.ones(4))


# NOG


@few
@given(st.integers(0, 2**31), st.sampled_from([(5, 9), (9, 5), (4, 3, 3, 3), (8, 2, 1, 1)]))
def test_nog_is_the_polar_factor_in_the_shape_of_the_gradient(seed, shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    U, _, Vh = torch.linalg.svd(gradient.double().flatten(1), full_matrices=False)
    expected = (U @ Vh).float().reshape(shape)
    torch.testing.assert_close(nearest_orthogonal_gradient(gradient), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nog_keeps_zero_and_dtype(dtype):
    gradient = torch.zeros(3, 2, 2, 2, dtype=dtype)
    assert torch.equal(nearest_orthogonal_gradient(gradient), gradient)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("entry", [torch.nan, torch.inf, -torch.inf])
def test_nog_passes_a_nonfinite_gradient_through(dtype, entry):
    gradient = torch.randn(3, 2, 2).to(dtype)
    gradient[1, 1, 0] = entry
    result = nearest_orthogonal_gradient(gradient)
    torch.testing.assert_close(result, gradient, equal_nan=True, atol=0, rtol=0)


# OLR


def newton_step(w, l):  # noqa: E741
    def objective(eta):
        return (w - eta * l).square().sum().square()

    eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objective(eta), eta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, eta)
    return (-slope / curvature).item()


@few
@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-1, 1))
def test_olr_is_the_newton_step(seed, scale, mix):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    l = scale * (mix * w + torch.randn(4, 6, generator=generator, dtype=torch.float64))  # noqa: E741
    eta = newton_step(w, l)
    assume(abs(eta) > 1e-9)
    assert optimal_learning_rate(w, l, 1e9).item() == pytest.approx(eta if eta > 0 else 1e9)
    assert optimal_learning_rate(w, l, abs(eta) / 2).item() == abs(eta) / 2


def test_olr_of_extreme_entries():
    unit = torch.randn(3, 5).abs()
    expected = optimal_learning_rate(unit, unit.flip(0), 10.0).item()
    for w_scale, l_scale in [(1e-30, 1e-30), (1e15, 1e15), (1e-30, 1e15), (1e15, 1e-30)]:
        rate = optimal_learning_rate(w_scale * unit, l_scale * unit.flip(0), 1e300)
        assert rate.item() == pytest.approx(expected * w_scale / l_scale, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_olr_of_a_degenerate_pair_is_the_base_rate(dtype):
    ones, zeros = torch.ones(2, 2, dtype=dtype), torch.zeros(2, 2, dtype=dtype)
    for entry in (torch.nan, torch.inf, -torch.inf):
        spoilt = ones.clone()
        spoilt[0, 1] = entry
        for w, l in [(spoilt, ones), (ones, spoilt), (spoilt, spoilt), (zeros, spoilt)]:  # noqa: E741
            assert optimal_learning_rate(w, l, 0.3).item() == 0.3
    for w, l in [(zeros, ones), (ones, zeros), (zeros, zeros), (ones, -ones)]:  # noqa: E741
        assert optimal_learning_rate(w, l, 0.3).item() == 0.3


def test_olr_takes_a_tensor_as_base_rate_and_leaves_it_alone():
    base = torch.tensor(0.25)
    rate = optimal_learning_rate(torch.ones(2, 2), torch.ones(2, 2), base)
    assert rate.item() == 0.25
    assert rate is not base
    assert rate.shape == ()
    assert optimal_learning_rate(torch.ones(2, 2), torch.ones(2, 2), torch.tensor(0.5)) == 1 / 3


def test_olr_refuses_another_shape():
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(3, 2\)"):
        optimal_learning_rate(torch.ones(2, 3), torch.ones(3, 2), 0.1)


# OL


def test_orthogonal_loss_of_known_matrices():
    wide = torch.linalg.qr(torch.randn(9, 4))[0].T
    assert orthogonal_loss([wide]).item() == pytest.approx(0, abs=1e-12)
    assert orthogonal_loss([wide.T]).item() == pytest.approx(0, abs=1e-12)
    assert orthogonal_loss([wide.reshape(4, 1, 3, 3)]).item() == pytest.approx(0, abs=1e-12)
    # Gram 4I: three on the diagonal of 4 × 4.
    assert orthogonal_loss([2 * wide]).item() == pytest.approx(9 / 4, rel=1e-5)
    assert orthogonal_loss(iter([wide, 2 * wide])).item() == pytest.approx(9 / 8, rel=1e-5)


def test_orthogonal_loss_descends_to_an_orthonormal_matrix():
    weight = (0.3 * torch.randn(3, 8)).requires_grad_()
    optimizer = SGD([weight], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        orthogonal_loss([weight]).backward()
        optimizer.step()
    torch.testing.assert_close(weight @ weight.T, torch.eye(3), atol=1e-4, rtol=0)


def test_orthogonal_loss_passes_gradcheck():
    matrices = [torch.randn(shape, dtype=torch.float64) for shape in [(2, 4), (4, 2), (2, 1, 3)]]
    matrices = [matrix.requires_grad_() for matrix in matrices]
    assert torch.autograd.gradcheck(lambda *Us: orthogonal_loss(Us), matrices)


def test_orthogonal_loss_says_what_it_expects():
    with pytest.raises(ValueError, match="at least one matrix, got none"):
        orthogonal_loss([])
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        orthogonal_loss([torch.ones(3)])


# Finding parameters


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_names_are_found_inside_wrappers():
    network = Network()
    for wrapped in (network, Wrapper(network), Wrapper(Wrapper(network)), torch.compile(network)):
        found = resolve_parameters(wrapped, NAMES)
        assert list(found) == list(NAMES)
        assert found["up.weight"] is network.up.weight


def test_the_full_name_wins_over_the_end_of_another():
    network = nn.ModuleDict({"weight_of": nn.Linear(2, 2), "deep": Wrapper(nn.Linear(2, 2))})
    network["module"] = nn.Linear(2, 2)
    found = resolve_parameters(network, ["module.weight"])["module.weight"]
    assert found is network["module"].weight


def test_a_name_that_is_not_found_is_an_error():
    with pytest.raises(ValueError, match=r"'conv.wieght'; there is conv.weight"):
        resolve_parameters(Network(), ["conv.wieght"])
    with pytest.raises(ValueError, match=r"'zzz'; there is conv.weight, conv.bias, up.weight"):
        resolve_parameters(Network(), ["zzz"])
    # An end, but not from a dot on.
    with pytest.raises(ValueError, match=r"no parameter is named 'onv.weight'"):
        resolve_parameters(Network(), ["onv.weight"])


def test_what_is_found_twice_is_an_error():
    network = Network()
    with pytest.raises(ValueError, match=r"'weight' names 3 parameters: conv.weight, up.weight, l"):
        resolve_parameters(network, ["weight"])
    with pytest.raises(ValueError, match=r"'conv.weight' and 'conv.weight' are the same"):
        resolve_parameters(network, ["conv.weight", "conv.weight"])
    with pytest.raises(ValueError, match=r"'module.conv.weight' and 'conv.weight' are the same"):
        resolve_parameters(Wrapper(network), ["module.conv.weight", "conv.weight"])
    tied = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    tied["b"].weight = tied["a"].weight
    with pytest.raises(ValueError, match=r"'a.weight' and 'b.weight' are the same parameter"):
        resolve_parameters(tied, ["a.weight", "b.weight"])


def test_other_bad_names():
    network = Network()
    with pytest.raises(ValueError, match="at least one parameter, got none"):
        resolve_parameters(network, [])
    with pytest.raises(ValueError, match=r"got the string 'conv.weight'"):
        resolve_parameters(network, "conv.weight")
    with pytest.raises(ValueError, match=r"'conv.bias' must have at least 2 .*got shape \(4,\)"):
        resolve_parameters(network, ["conv.bias"])


# Attaching to an optimizer


def test_nog_replaces_the_gradient_of_the_targets_only():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    attach(optimizer, resolve_parameters(network, ["conv.weight"]), ["nog"])
    network(make_batch(0)).square().mean().backward()
    before = {name: p.grad.clone() for name, p in network.named_parameters()}
    weight = network.conv.weight.detach().clone()
    optimizer.step()
    expected = nearest_orthogonal_gradient(before.pop("conv.weight"))
    torch.testing.assert_close(network.conv.weight, weight - 0.1 * expected)
    for name, gradient in before.items():
        assert torch.equal(network.get_parameter(name).grad, gradient)
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("names", [["nog", "olr"], ["olr", "nog"], {"nog", "olr"}])
def test_olr_sees_the_gradient_after_nog(names):
    network = Network()
    with torch.no_grad():
        network.conv.weight.copy_(torch.randn(4, 3, 3, 3))
    optimizer = SGD(network.parameters(), lr=100.0)
    attach(optimizer, {"conv.weight": network.conv.weight}, names)
    seen = []
    watch_rates(optimizer, seen)
    weight = network.conv.weight.detach().clone()
    # The signs of the weight make lᵀw, and so η, positive.
    network.conv.weight.grad = weight * (0.5 + torch.rand(4, 3, 3, 3))
    orthogonal = nearest_orthogonal_gradient(network.conv.weight.grad)
    expected = optimal_learning_rate(weight, orthogonal, 100.0)
    optimizer.step()
    assert 0 < expected < 100
    assert seen == [[100.0, expected.item()]]
    torch.testing.assert_close(network.conv.weight, weight - expected.float() * orthogonal)


def test_olr_alone_leaves_the_gradient_and_restores_the_rate():
    network = Network()
    optimizer = SGD(network.parameters(), lr=7.0)
    attach(optimizer, resolve_parameters(network, ["linear.weight"]), ["olr"])
    seen = []
    watch_rates(optimizer, seen)
    network.linear.weight.grad = network.linear.weight.detach().clone()
    optimizer.step()
    # η of l = w is ⅓.
    assert seen == [[7.0, pytest.approx(1 / 3)]]
    assert [group["lr"] for group in optimizer.param_groups] == [7.0, 7.0]


def test_every_target_has_its_own_rate():
    network = Network()
    optimizer = SGD(network.parameters(), lr=50.0)
    attach(optimizer, resolve_parameters(network, NAMES), ["olr"])
    seen = []
    watch_rates(optimizer, seen)
    for scale, name in enumerate(NAMES, start=1):
        parameter = network.get_parameter(name)
        parameter.grad = scale * parameter.detach()
    optimizer.step()
    assert seen[0] == pytest.approx([50.0, 1 / 3, 1 / 6, 1 / 9])


def test_groups_are_split_with_their_options():
    network = Network()
    decayed, plain = [network.conv.weight, network.up.weight], [network.linear.weight]
    rate = torch.tensor(0.1)
    optimizer = SGD([{"params": decayed, "weight_decay": 0.5, "lr": rate}, {"params": plain}], 0.2)
    attach(optimizer, resolve_parameters(network, NAMES[1:]), ["olr"])
    groups = optimizer.param_groups
    members = [[id(parameter) for parameter in group["params"]] for group in groups]
    assert members == [[id(decayed[0])], [id(plain[0])], [id(decayed[1])]]
    assert [group["weight_decay"] for group in groups] == [0.5, 0, 0.5]
    assert [float(group["lr"]) for group in groups] == pytest.approx([0.1, 0.2, 0.1])
    assert groups[2]["lr"] is not rate


def test_a_group_without_parameters_is_no_obstacle():
    network = Network()
    optimizer = SGD([{"params": list(network.parameters())}, {"params": []}], lr=0.1)
    attach(optimizer, resolve_parameters(network, NAMES), ["nog", "olr"])
    assert train(network, optimizer, 2) == [[0.1] * 5] * 2


def test_names_of_parameters_follow_them_into_their_group():
    network = Network()
    optimizer = SGD(network.named_parameters(), lr=0.1)
    attach(optimizer, resolve_parameters(network, ["up.weight"]), ["olr"])
    rest = ["conv.weight", "conv.bias", "up.bias", "linear.weight", "linear.bias"]
    assert [group["param_names"] for group in optimizer.param_groups] == [rest, ["up.weight"]]


def test_parameters_without_gradient_are_skipped():
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=0.1))
    network.conv.weight.grad = torch.ones_like(network.conv.weight)
    before = network.up.weight.detach().clone()
    optimizer.step()
    assert network.up.weight.grad is None
    assert torch.equal(network.up.weight, before)


def test_a_gradient_of_zero_moves_nothing():
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=0.1))
    before = weights_of(network)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(map(torch.equal, before, weights_of(network)))


def test_a_nonfinite_gradient_reaches_the_optimizer_untouched():
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=0.1))
    seen = []
    watch_rates(optimizer, seen)
    gradient = torch.randn_like(network.conv.weight)
    gradient[0, 0, 0, 0] = torch.inf
    network.conv.weight.grad = gradient.clone()
    optimizer.step()
    assert torch.equal(network.conv.weight.grad, gradient)
    assert seen == [[0.1] * 4]


def test_without_a_technique_nothing_is_done():
    torch.manual_seed(0)
    plain = Network()
    train(plain, SGD(plain.parameters(), lr=0.1), 2)
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=0.1), techniques=())
    train(network, optimizer, 2)
    assert all(map(torch.equal, weights_of(plain), weights_of(network)))


def test_removal_undoes_the_hooks():
    torch.manual_seed(0)
    plain = Network()
    train(plain, SGD(plain.parameters(), lr=0.1), 2)
    torch.manual_seed(0)
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    parameters = resolve_parameters(network, NAMES)
    attachment = attach(optimizer, parameters, ["nog", "olr"])
    assert isinstance(attachment, Attachment)
    attachment.remove()
    # A second time, and as a context manager.
    with attach(optimizer, parameters, ["nog"]):
        pass
    train(network, optimizer, 2)
    assert all(map(torch.equal, weights_of(plain), weights_of(network)))


def test_a_step_that_raised_does_not_leave_its_rate_behind():
    network = Network()
    optimizer = SGD(network.parameters(), lr=9.0)
    attach(optimizer, resolve_parameters(network, ["linear.weight"]), ["olr"])
    seen = []
    watch_rates(optimizer, seen)

    def fail(*_):
        raise MemoryError

    handle = optimizer.register_step_pre_hook(fail)
    network.linear.weight.grad = network.linear.weight.detach().clone()
    with pytest.raises(MemoryError):
        optimizer.step()
    handle.remove()
    network.linear.weight.grad = -network.linear.weight.detach()
    optimizer.step()
    assert seen[1] == [9.0, 9.0]


# With schedulers, checkpoints, scalers, accumulation, other optimizers


@pytest.mark.parametrize("tensor_rate", [False, True])
@pytest.mark.parametrize(
    "make_scheduler",
    [
        lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5),
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones=[1, 4], gamma=0.1),
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=6),
    ],
    ids=["step", "multi-step", "cosine"],
)
def test_schedules_go_on_from_the_scheduled_rate(make_scheduler, tensor_rate):
    def make_optimizer(parameters):
        rate = torch.tensor(20.0, dtype=torch.float64) if tensor_rate else 20.0
        return SGD(parameters, lr=rate, fused=True)

    bystander = make_optimizer(nn.Linear(2, 2).parameters())
    scheduler = make_scheduler(bystander)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the bystander never steps
        expected = []
        for _ in range(6):
            scheduler.step()
            expected.append(float(bystander.param_groups[0]["lr"]))
    network, optimizer = make_training(make_optimizer)
    used = []
    watch_rates(optimizer, used)
    rates = train(network, optimizer, 6, scheduler=make_scheduler(optimizer))
    assert rates == [[rate] * 4 for rate in expected]
    # The optimal rate was in use, and never above the scheduled one.
    assert any(min(step) < max(step) for step in used)
    bases = [20.0, *expected[:-1]]
    assert all(rate <= base for step, base in zip(used, bases, strict=True) for rate in step)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda parameters: Adam(parameters, lr=0.5, fused=True),
        lambda parameters: SGD(parameters, lr=0.5, momentum=0.9),
    ],
    ids=["adam", "sgd"],
)
def test_checkpoints_round_trip(make_optimizer, tmp_path):
    network, optimizer = make_training(make_optimizer)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=2)
    train(network, optimizer, 3, scheduler=scheduler)
    saved = {"n": network.state_dict(), "o": optimizer.state_dict(), "s": scheduler.state_dict()}
    torch.save(saved, tmp_path / "checkpoint.pt")
    rates = train(network, optimizer, 3, scheduler=scheduler, first=3)

    resumed, new_optimizer = make_training(make_optimizer)
    new_scheduler = lr_scheduler.StepLR(new_optimizer, step_size=2)
    loaded = torch.load(tmp_path / "checkpoint.pt")
    resumed.load_state_dict(loaded["n"])
    new_optimizer.load_state_dict(loaded["o"])
    new_scheduler.load_state_dict(loaded["s"])
    assert train(resumed, new_optimizer, 3, scheduler=new_scheduler, first=3) == rates
    assert all(map(torch.equal, weights_of(network), weights_of(resumed)))


def test_a_gradient_scaler_skips_the_step_that_overflows():
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=0.5))
    seen = []
    watch_rates(optimizer, seen)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights_of(network)
    for overflow in (True, False):
        optimizer.zero_grad()
        scaler.scale(network(make_batch(0)).square().mean()).backward()
        if overflow:
            network.conv.weight.grad[0] = torch.inf
        scaler.step(optimizer)
        scaler.update()
        assert len(seen) == (0 if overflow else 1)
        assert all(map(torch.equal, before, weights_of(network))) == overflow
    torch.testing.assert_close(as_matrix(network.up.weight.grad).norm() ** 2, torch.tensor(4.0))


def test_a_fused_optimizer_must_be_unscaled_first():
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=0.5, fused=True))
    plain, plain_optimizer = make_training(lambda parameters: SGD(parameters, lr=0.5, fused=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for overflow in (True, False):
        optimizer.zero_grad()
        scaler.scale(network(make_batch(0)).square().mean()).backward()
        if overflow:
            network.conv.weight.grad[0] = torch.inf
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    train(plain, plain_optimizer, 1)
    torch.testing.assert_close(weights_of(network), weights_of(plain))
    scaler.scale(network(make_batch(0)).square().mean()).backward()
    with pytest.raises(ValueError, match=r"call scaler.unscale_\(optimizer\) before"):
        scaler.step(optimizer)


def test_accumulated_gradients_are_treated_once():
    network, optimizer = make_training(lambda parameters: Adam(parameters, lr=0.5))
    joint, joint_optimizer = make_training(lambda parameters: Adam(parameters, lr=0.5))
    batch = make_batch(0, size=8)
    joint(batch).square().mean().backward()
    for part in batch.chunk(4):
        (network(part).square().mean() / 4).backward()
    # The sums of the parts differ from the joint one by rounding, which NOG may magnify.
    for p, q in zip(network.parameters(), joint.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
        p.grad.copy_(q.grad)
    optimizer.step()
    joint_optimizer.step()
    assert all(map(torch.equal, weights_of(network), weights_of(joint)))


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda parameters: SGD(parameters, lr=2.0),
        lambda parameters: SGD(parameters, lr=2.0, foreach=True),
        lambda parameters: SGD(parameters, lr=2.0, momentum=0.9, fused=True),
        lambda parameters: Adam(parameters, lr=2.0),
        lambda parameters: Adam(parameters, lr=2.0, foreach=True),
        lambda parameters: torch.optim.AdamW(parameters, lr=2.0, fused=True),
        lambda parameters: torch.optim.RMSprop(parameters, lr=2.0),
        lambda parameters: torch.optim.Adagrad(parameters, lr=2.0),
        lambda parameters: torch.optim.NAdam(parameters, lr=2.0),
        lambda parameters: torch.optim.RAdam(parameters, lr=2.0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_optimizers_use_the_rate_that_they_are_given(make_optimizer, dtype):
    network, optimizer = make_training(make_optimizer)
    network.to(dtype)
    seen = []
    watch_rates(optimizer, seen)
    gradients = {p: p.detach().clone() for p in network.parameters()}
    for parameter, gradient in gradients.items():
        parameter.grad = gradient.clone()
    before = weights_of(network)
    twin = copy.deepcopy(network)
    optimizer.step()
    assert all(rate < 2.0 for rate in seen[0][1:])
    # The same step by an optimizer without techniques, with numbers as rates.
    by_name = dict(twin.named_parameters())
    targets = [by_name.pop(name) for name in NAMES]
    groups = [{"params": list(by_name.values())}, *({"params": [p]} for p in targets)]
    plain = make_optimizer(groups)
    for group, rate in zip(plain.param_groups, seen[0], strict=True):
        group["lr"] = rate
    for p, treated in zip(twin.parameters(), network.parameters(), strict=True):
        p.grad = treated.grad.clone()
    plain.step()
    torch.testing.assert_close(weights_of(network), weights_of(twin))
    assert not any(map(torch.equal, before, weights_of(network)))


@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nog", "olr"]])
@pytest.mark.parametrize("optimizer_class", [SGD, Adam])
def test_a_step_does_not_wait_for_a_tensor(optimizer_class, techniques):
    network, optimizer = make_training(
        lambda parameters: optimizer_class(parameters, lr=0.5, fused=True), techniques
    )
    train(network, optimizer, 1)
    network(make_batch(1)).square().mean().backward()
    with CountScalars() as count:
        optimizer.step()
    assert count.calls == 0


def test_the_counter_counts():
    with CountScalars() as count:
        float(torch.ones(()) + 1)
        bool(torch.ones(()) > 0)
    assert count.calls >= 2


# What bad input gets


def test_technique_names():
    assert get_args(Technique) == ("nog", "olr", "ol")
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    parameters = resolve_parameters(network, NAMES)
    for name in ("ol", "svd", ""):
        with pytest.raises(ValueError, match=f"{name!r} is no technique.*choose from nog, olr"):
            attach(optimizer, parameters, ["nog", name])
    with pytest.raises(ValueError, match="list of names, got the string 'nog'"):
        attach(optimizer, parameters, "nog")
    assert len(optimizer.param_groups) == 1


def test_a_parameter_that_the_optimizer_does_not_hold():
    network = Network()
    optimizer = SGD(network.conv.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"does not hold the parameter 'up.weight'"):
        attach(optimizer, resolve_parameters(network, NAMES), ["olr"])
    with pytest.raises(ValueError, match=r"at least one parameter to attach to, got none"):
        attach(optimizer, {}, ["olr"])
    assert len(optimizer.param_groups) == 1


def test_olr_comes_before_the_scheduler():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    lr_scheduler.StepLR(optimizer, step_size=1)
    parameters = resolve_parameters(network, NAMES)
    with pytest.raises(ValueError, match="attach it before the scheduler is made"):
        attach(optimizer, parameters, ["nog", "olr"])
    attach(optimizer, parameters, ["nog"])


def test_techniques_are_attached_at_once():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    attach(optimizer, resolve_parameters(network, ["conv.weight"]), ["olr"])
    with pytest.raises(ValueError, match=r"'conv.weight' already has techniques"):
        attach(optimizer, resolve_parameters(network, NAMES), ["nog"])
    attach(optimizer, resolve_parameters(network, ["up.weight"]), OPTIMIZER_TECHNIQUES)


def test_a_wrapped_optimizer_is_refused():
    class Wrapped(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

    network = Network()
    wrapped = Wrapped(SGD(network.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"got Wrapped.*before accelerator.prepare"):
        attach(wrapped, resolve_parameters(network, NAMES), ["nog"])


def test_a_closure_is_refused():
    _, optimizer = make_training(lambda parameters: SGD(parameters, lr=0.1), ["nog"])
    for call in (lambda: optimizer.step(lambda: 0.0), lambda: optimizer.step(closure=lambda: 0.0)):
        with pytest.raises(ValueError, match="without a closure"):
            call()
    optimizer.step(closure=None)
