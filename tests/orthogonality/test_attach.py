import copy
import copyreg
import gc
import io
import pickle
import weakref
from inspect import signature

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.optim import SGD, Adam, AdamW, lr_scheduler

from disentangle.orthogonality import (
    Attachment,
    as_matrix,
    attach,
    nearest_orthogonal_gradient,
    optimal_learning_rate,
    resolve_parameters,
)
from disentangle.orthogonality.step_hooks import StepHooks, step_hooks


class Network(nn.Module):
    """One layer of each kind."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=3, padding=1)
        self.up = nn.ConvTranspose2d(4, 2, kernel_size=2, stride=2)
        self.linear = nn.Linear(2 * 8 * 8, 5)

    def forward(self, images):
        return self.linear(self.up(self.conv(images)).tanh().flatten(1))


NAMES = ("conv.weight", "up.weight", "linear.weight")


def make_batch(seed, size=4, dtype=torch.float32):
    return torch.randn(size, 3, 4, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)


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


def make_training(make_optimizer, techniques=("nog", "olr"), dtype=torch.float32):
    torch.manual_seed(0)
    network = Network().to(dtype)
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


def backward(network, seed=0):
    """The gradient of a batch, in place of the one there was."""
    network.zero_grad()
    dtype = next(network.parameters()).dtype
    network(make_batch(seed, dtype=dtype)).square().mean().backward()


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


class Failing(SGD):
    """Raises after its step."""

    def step(self, closure=None):
        super().step(closure)
        if self.failing:
            raise MemoryError


def fail(*_):
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore:olr could not verify")
@pytest.mark.parametrize("where", ["before", "within", "after"])
def test_a_step_that_raises_leaves_no_rate_behind(where):
    network = Network()
    optimizer = Failing(network.parameters(), lr=9.0)
    optimizer.failing = where == "within"
    if where == "after":
        optimizer.register_step_post_hook(fail)
    attach(optimizer, resolve_parameters(network, ["linear.weight"]), ["olr"])
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    seen = []
    watch_rates(optimizer, seen)
    if where == "before":
        optimizer.register_step_pre_hook(fail)
    network.linear.weight.grad = network.linear.weight.detach().clone()
    with pytest.raises((MemoryError, KeyboardInterrupt)):
        optimizer.step()
    assert seen[0] == [9.0, pytest.approx(1 / 3)]
    for groups in (optimizer.param_groups, optimizer.state_dict()["param_groups"]):
        assert all(type(group["lr"]) is float and group["lr"] == 9.0 for group in groups)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [4.5, 4.5]


@pytest.mark.filterwarnings("ignore:olr could not verify")
def test_a_step_that_was_bound_before_starts_from_the_scheduled_rate():
    """As Accelerate binds it when it has a gradient scaler."""

    class Plain(torch.optim.Optimizer):
        failing = False

        def step(self, closure=None):
            if self.failing:
                raise MemoryError

    network = Network()
    optimizer = Plain(network.parameters(), {"lr": 9.0})
    step = optimizer.step
    attach(optimizer, resolve_parameters(network, ["linear.weight"]), ["olr"])
    seen = []
    watch_rates(optimizer, seen)
    optimizer.failing = True
    network.linear.weight.grad = network.linear.weight.detach().clone()
    with pytest.raises(MemoryError):
        step()
    optimizer.failing = False
    network.linear.weight.grad = -network.linear.weight.detach()
    step()
    assert seen == [[9.0, pytest.approx(1 / 3)], [9.0, 9.0]]


# Copies


def deepcopy_both(network, optimizer):
    return copy.deepcopy((network, optimizer))


def pickle_both(network, optimizer):
    return pickle.loads(pickle.dumps((network, optimizer)))


def save_both(network, optimizer):
    file = io.BytesIO()
    torch.save((network, optimizer), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("make_copy", [deepcopy_both, pickle_both, save_both])
@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nog", "olr"], ["nou"], ["nou", "olr"]])
@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda parameters: SGD(parameters, lr=2.0, momentum=0.9),
        lambda parameters: Adam(parameters, lr=2.0, fused=True),
    ],
    ids=["sgd", "adam"],
)
def test_a_copy_goes_on_as_the_original(make_optimizer, techniques, make_copy):
    network, optimizer = make_training(make_optimizer, techniques)
    optimizer.register_step_pre_hook(lambda *_: None)  # cannot be pickled, and need not be
    train(network, optimizer, 2)
    # A copy of a copy.
    twin, twin_optimizer = make_copy(*make_copy(network, optimizer))
    plain, plain_optimizer = copy.deepcopy((network, optimizer))
    for hooks in step_hooks(plain_optimizer):
        hooks.remove()
    rates = train(network, optimizer, 2, first=2)
    assert train(twin, twin_optimizer, 2, first=2) == rates
    train(plain, plain_optimizer, 2, first=2)
    assert all(map(torch.equal, weights_of(network), weights_of(twin)))
    assert not any(map(torch.equal, weights_of(network), weights_of(plain)))


def test_the_attachment_of_a_copy_is_its_own():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    attachment = attach(optimizer, resolve_parameters(network, NAMES), ["nog"])
    twin, twin_optimizer, twin_attachment = copy.deepcopy((network, optimizer, attachment))
    assert step_hooks(twin_optimizer) == [twin_attachment]
    twin_attachment.remove()
    for one, its_optimizer, orthogonal in (
        (network, optimizer, True),
        (twin, twin_optimizer, False),
    ):
        backward(one)
        its_optimizer.step()
        gradient = as_matrix(one.conv.weight.grad)
        assert torch.allclose(gradient @ gradient.T, torch.eye(4), atol=1e-5) == orthogonal
    assert step_hooks(copy.deepcopy(twin_optimizer)) == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_pickle_keeps_the_techniques(protocol):
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=2.0, momentum=0.9))
    train(network, optimizer, 1)
    twin, twin_optimizer = pickle.loads(pickle.dumps((network, optimizer), protocol))
    assert train(twin, twin_optimizer, 2) == train(network, optimizer, 2)
    assert all(map(torch.equal, weights_of(network), weights_of(twin)))


def test_a_step_of_a_copy_that_raises_leaves_no_rate_behind():
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=9.0))
    twin, twin_optimizer = copy.deepcopy((network, optimizer))
    seen = []
    watch_rates(twin_optimizer, seen)
    twin_optimizer.register_step_pre_hook(fail)
    backward(twin)
    with pytest.raises(KeyboardInterrupt):
        twin_optimizer.step()
    assert min(seen[0]) < 9.0
    for one in (optimizer, twin_optimizer):
        assert [group["lr"] for group in one.param_groups] == [9.0] * 4


class SelfReferring(SGD):
    def __getstate__(self):
        return {**super().__getstate__(), "owner": self}


@pytest.mark.parametrize("make_copy", [deepcopy_both, pickle_both, save_both])
def test_an_optimizer_whose_state_refers_to_it_is_copied(make_copy):
    network, optimizer = make_training(lambda parameters: SelfReferring(parameters, lr=0.1))
    _, twin_optimizer = make_copy(network, optimizer)
    assert twin_optimizer.owner is twin_optimizer
    assert len(step_hooks(twin_optimizer)) == 1


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("make_copy", [deepcopy_both, pickle_both])
def test_a_copy_of_the_optimizer_that_accelerate_wraps(make_copy, scaled):
    Accelerator(cpu=True)  # the state that the wrapper reads
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=2.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0) if scaled else None
    wrapped = AcceleratedOptimizer(optimizer, scaler=scaler)
    twin, twin_wrapped = make_copy(network, wrapped)
    plain = copy.deepcopy(network)
    for one, its_wrapped in ((network, wrapped), (twin, twin_wrapped)):
        if scaled:
            its_wrapped.scaler.scale(torch.ones(()))  # creates its state; the scale is 1
        train(one, its_wrapped, 3)
    train(plain, SGD(plain.parameters(), lr=2.0), 3)
    assert all(map(torch.equal, weights_of(network), weights_of(twin)))
    assert not any(map(torch.equal, weights_of(network), weights_of(plain)))


# The class of an optimizer with techniques


def test_only_the_optimizer_itself_is_changed():
    network, bystander = Network(), SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    optimizer = SGD(network.parameters(), lr=0.1)
    members, table = dict(vars(SGD)), dict(copyreg.dispatch_table)
    attachment = attach(optimizer, resolve_parameters(network, NAMES), ["nog", "olr"])
    twin_optimizer = copy.deepcopy(optimizer)
    train(network, optimizer, 1)
    assert dict(vars(SGD)) == members
    assert copyreg.dispatch_table == table
    for plain in (bystander, copy.deepcopy(bystander), pickle.loads(pickle.dumps(bystander))):
        assert type(plain) is SGD
        assert not plain._optimizer_step_pre_hooks
    assert isinstance(optimizer, SGD)
    assert type(optimizer) is type(twin_optimizer) is not SGD
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(type(optimizer), name) == getattr(SGD, name)
    attachment.remove()
    assert type(optimizer) is SGD


def test_the_class_is_restored_with_the_last_removal():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    attachments = [attach(optimizer, resolve_parameters(network, [n]), ["nog"]) for n in NAMES]
    for attachment in attachments:
        assert type(optimizer) is not SGD
        attachment.remove()
        attachment.remove()
    assert type(optimizer) is SGD
    shallow = copy.copy(make_training(lambda parameters: SGD(parameters, lr=0.1))[1])
    step_hooks(shallow)[0].remove()
    assert type(shallow) is SGD


def test_the_trial_of_an_optimizer_with_techniques_is_one_of_its_original_class():
    constructed = []

    class Recording(SGD):
        def __init__(self, params, **options):
            constructed.append(type(self))
            super().__init__(params, **options)

    network = Network()
    optimizer = Recording(network.parameters(), lr=0.1)
    attach(optimizer, resolve_parameters(network, NAMES[:1]), ["nog"])
    attach(optimizer, resolve_parameters(network, NAMES[1:]), ["olr"])
    assert len(constructed) > 1
    assert set(constructed) == {Recording}


class Counting(StepHooks):
    """Counts the steps that began and that ended."""

    def __init__(self, optimizer):
        self.began = self.ended = 0
        super().__init__(optimizer)

    def _before_step(self, optimizer, args, kwargs):
        self.began += 1

    def _end_step(self):
        self.ended += 1


def load_own_state(optimizer):
    optimizer.load_state_dict(optimizer.state_dict())
    return optimizer


def schedule(optimizer):
    lr_scheduler.StepLR(optimizer, step_size=1)
    return optimizer


@pytest.mark.parametrize(
    "change",
    [lambda optimizer: optimizer, copy.deepcopy, copy.copy, load_own_state, schedule],
    ids=["none", "deepcopy", "copy", "load", "schedule"],
)
@pytest.mark.parametrize("prepare", [lambda optimizer: optimizer, schedule], ids=["", "scheduled"])
def test_hooks_are_called_once_a_step(prepare, change):
    optimizer = prepare(SGD(Network().parameters(), lr=0.1))
    Counting(optimizer)
    optimizer = change(optimizer)
    # A later optimizer of the same class, at which PyTorch looks for its own hooks.
    SGD(Network().parameters(), lr=0.1).step()
    optimizer.step()
    (hooks,) = step_hooks(optimizer)
    assert (hooks.began, hooks.ended) == (1, 1)


def test_steps_bound_before_the_removal_go_on_without_hooks():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    attachment = attach(optimizer, resolve_parameters(network, NAMES), ["nog", "olr"])
    bound = optimizer.step
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    attachment.remove()
    backward(network)
    gradient = network.conv.weight.grad.clone()
    for step in (optimizer.step, bound):
        rate = scheduler.get_last_lr()[0]
        expected = network.conv.weight.detach() - rate * gradient
        step()
        torch.testing.assert_close(network.conv.weight.detach(), expected)
        scheduler.step()


def test_an_optimizer_with_techniques_is_freed_at_once():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    attachment = attach(optimizer, resolve_parameters(network, NAMES), ["nog", "olr"])
    train(network, optimizer, 1)
    reference = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer
        assert reference() is None
    finally:
        gc.enable()
    attachment.remove()


# With schedulers, checkpoints, scalers, accumulation, other optimizers


def make_sequence(optimizer):
    warm_up = lr_scheduler.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    decay = lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    return lr_scheduler.SequentialLR(optimizer, [warm_up, decay], milestones=[3])


@pytest.mark.parametrize("tensor_rate", [False, True])
@pytest.mark.parametrize(
    "make_scheduler",
    [
        lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5),
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones=[1, 4], gamma=0.1),
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=6),
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, max_lr=20.0, total_steps=7),
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
        make_sequence,
    ],
    ids=["step", "multi-step", "cosine", "one-cycle", "lambda", "sequential"],
)
def test_schedules_go_on_from_the_scheduled_rate(make_scheduler, tensor_rate):
    def make_optimizer(parameters):
        rate = torch.tensor(20.0, dtype=torch.float64) if tensor_rate else 20.0
        return SGD(parameters, lr=rate, momentum=0.1, fused=True)

    bystander = make_optimizer(nn.Linear(2, 2).parameters())
    scheduler = make_scheduler(bystander)
    expected = [float(bystander.param_groups[0]["lr"])]
    for _ in range(6):
        bystander.step()
        scheduler.step()
        expected.append(float(bystander.param_groups[0]["lr"]))
    network, optimizer = make_training(make_optimizer)
    scheduler = make_scheduler(optimizer)
    used = []
    watch_rates(optimizer, used)
    rates = train(network, optimizer, 6, scheduler=scheduler)
    assert len(set(expected)) > 1
    assert rates == [[rate] * 4 for rate in expected[1:]]
    # The optimal rate was in use, and never above the scheduled one.
    assert any(min(step) < max(step) for step in used)
    assert all(rate <= base for step, base in zip(used, expected, strict=False) for rate in step)


def test_a_plateau_lowers_the_scheduled_rate():
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=20.0, fused=True))
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    used = []
    watch_rates(optimizer, used)
    scheduler.step(1.0)
    for rate in (20.0, 10.0, 5.0):
        assert train(network, optimizer, 1) == [[rate] * 4]
        scheduler.step(1.0)
    assert any(min(step) < max(step) for step in used)


@pytest.mark.parametrize("techniques", [["nog", "olr"], ["nou", "olr"]])
@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda parameters: Adam(parameters, lr=0.5, fused=True),
        lambda parameters: SGD(parameters, lr=0.5, momentum=0.9),
    ],
    ids=["adam", "sgd"],
)
def test_checkpoints_round_trip(make_optimizer, techniques, tmp_path):
    network, optimizer = make_training(make_optimizer, techniques)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=2)
    train(network, optimizer, 3, scheduler=scheduler)
    saved = {"n": network.state_dict(), "o": optimizer.state_dict(), "s": scheduler.state_dict()}
    torch.save(saved, tmp_path / "checkpoint.pt")
    rates = train(network, optimizer, 3, scheduler=scheduler, first=3)

    resumed, new_optimizer = make_training(make_optimizer, techniques)
    new_scheduler = lr_scheduler.StepLR(new_optimizer, step_size=2)
    loaded = torch.load(tmp_path / "checkpoint.pt")
    resumed.load_state_dict(loaded["n"])
    new_optimizer.load_state_dict(loaded["o"])
    new_scheduler.load_state_dict(loaded["s"])
    assert train(resumed, new_optimizer, 3, scheduler=new_scheduler, first=3) == rates
    assert all(map(torch.equal, weights_of(network), weights_of(resumed)))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("optimizer_class", [SGD, Adam])
def test_a_gradient_scaler_skips_the_step_that_overflows(optimizer_class, fused):
    def make_optimizer(parameters):
        return optimizer_class(parameters, lr=0.5, fused=fused)

    network, optimizer = make_training(make_optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = weights_of(network)
    for overflow in (True, False):
        optimizer.zero_grad()
        scaler.scale(network(make_batch(0)).square().mean()).backward()
        if overflow:
            network.conv.weight.grad[0] = torch.inf
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert all(map(torch.equal, before, weights_of(network))) == overflow
        assert [group["lr"] for group in optimizer.param_groups] == [0.5] * 4
    # As without a scaler, which multiplied by a power of two.
    plain, plain_optimizer = make_training(make_optimizer)
    train(plain, plain_optimizer, 1)
    assert all(map(torch.equal, weights_of(network), weights_of(plain)))


def test_a_scaler_unscales_what_is_not_fused_by_itself():
    network, optimizer = make_training(lambda parameters: SGD(parameters, lr=0.5))
    plain, plain_optimizer = make_training(lambda parameters: SGD(parameters, lr=0.5))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(network(make_batch(0)).square().mean()).backward()
    scaler.step(optimizer)
    train(plain, plain_optimizer, 1)
    assert all(map(torch.equal, weights_of(network), weights_of(plain)))


@pytest.mark.parametrize("optimizer_class", [SGD, Adam])
def test_a_fused_optimizer_must_be_unscaled_first(optimizer_class):
    network, optimizer = make_training(lambda p: optimizer_class(p, lr=0.5, fused=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(network(make_batch(0)).square().mean()).backward()
    with pytest.raises(ValueError, match=r"call scaler.unscale_\(optimizer\) before"):
        scaler.step(optimizer)


@pytest.mark.parametrize("fused", [False, True])
def test_half_precision_backs_off_until_it_does_not_overflow(fused):
    network, optimizer = make_training(lambda p: SGD(p, lr=0.5, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, backoff_factor=2.0**-4)
    before, overflows = weights_of(network), 0
    while all(map(torch.equal, before, weights_of(network))):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = network(make_batch(0)).square().mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        overflows += any(not p.grad.isfinite().all() for p in network.parameters())
        scaler.step(optimizer)
        scaler.update()
    assert 0 < overflows < 5
    orthogonal = as_matrix(network.up.weight.grad)
    torch.testing.assert_close(orthogonal @ orthogonal.T, torch.eye(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("techniques", [["nog", "olr"], ["nou", "olr"]])
@pytest.mark.parametrize(
    "make_optimizer",
    [
        # With its default eps Adam scales up the rounding of the smallest entries.
        lambda parameters: Adam(parameters, lr=0.5, eps=1e-3),
        lambda parameters: SGD(parameters, lr=2.0, momentum=0.9, fused=True),
    ],
    ids=["adam", "sgd"],
)
def test_accumulated_gradients_are_treated_once(make_optimizer, techniques):
    network, optimizer = make_training(make_optimizer, techniques, torch.float64)
    joint, joint_optimizer = make_training(make_optimizer, techniques, torch.float64)
    seen, joint_seen = [], []
    watch_rates(optimizer, seen)
    watch_rates(joint_optimizer, joint_seen)
    for step in range(3):
        batch = make_batch(step, size=8, dtype=torch.float64)
        joint_optimizer.zero_grad()
        joint(batch).square().mean().backward()
        joint_optimizer.step()
        optimizer.zero_grad()
        for part in batch.chunk(4):
            (network(part).square().mean() / 4).backward()
        optimizer.step()
    assert any(min(step) < max(step) for step in seen)
    torch.testing.assert_close(seen, joint_seen, atol=1e-10, rtol=0)
    torch.testing.assert_close(weights_of(network), weights_of(joint), atol=1e-10, rtol=0)


# Clipping, decay, ascent


def clip(network, to=1e-3):
    return nn.utils.clip_grad_norm_(network.parameters(), to)


def test_nog_undoes_clipping_and_olr_sees_it():
    base = 50.0
    for techniques in (["nog"], ["olr"], ["nog", "olr"]):
        network, optimizer = make_training(lambda p: SGD(p, lr=base), techniques)
        plain, plain_optimizer = make_training(lambda p: SGD(p, lr=base), techniques)
        seen, plain_seen = [], []
        watch_rates(optimizer, seen)
        watch_rates(plain_optimizer, plain_seen)
        backward(network)
        backward(plain)
        norm = clip(network)
        assert norm > 1e-3
        optimizer.step()
        plain_optimizer.step()
        if "nog" in techniques:
            torch.testing.assert_close(seen, plain_seen)
            for name in NAMES:
                expected = plain.get_parameter(name)
                torch.testing.assert_close(network.get_parameter(name), expected)
        else:
            # η is inverse to the magnitude, until the base rate caps it.
            inverse = [min(base, rate * norm.item() / 1e-3) for rate in plain_seen[0]]
            assert seen[0] == pytest.approx([base, *inverse[1:]], rel=1e-4)
            assert seen != plain_seen


def test_nog_that_keeps_the_norm_keeps_the_clipped_one():
    network, optimizer = make_training(lambda p: SGD(p, lr=0.1), [])
    attach(optimizer, resolve_parameters(network, NAMES), ["nog"], nog_scale="gradient")
    backward(network)
    clip(network)
    clipped = [network.get_parameter(name).grad.norm() for name in NAMES]
    optimizer.step()
    torch.testing.assert_close([network.get_parameter(n).grad.norm() for n in NAMES], clipped)
    assert 0 < sum(norm.square() for norm in clipped) <= 1.001e-6
    gradient = as_matrix(network.conv.weight.grad)
    expected = clipped[0] ** 2 / 4 * torch.eye(4)
    torch.testing.assert_close(gradient @ gradient.T, expected, atol=1e-12, rtol=1e-4)


def test_what_is_registered_after_attach_clips_what_nog_gives():
    network, optimizer = make_training(lambda p: SGD(p, lr=0.1), ["nog"])
    norms = []
    optimizer.register_step_pre_hook(lambda *_: norms.append(clip(network, to=0.5)))
    backward(network)
    optimizer.step()
    squares = [network.get_parameter(name).grad.square().sum() for name in NAMES]
    # Of an orthogonal gradient it is the rank: 4 rows, 4 rows, 4 images. Biases add theirs.
    assert norms[0] ** 2 > 4 + 4 + 4
    assert sum(squares) < 0.25
    torch.testing.assert_close(squares[1:], [squares[0]] * 2)


@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nog", "olr"], ["nou", "olr"]])
@pytest.mark.parametrize("optimizer_class", [SGD, Adam])
def test_to_maximize_is_to_minimize_the_negative(optimizer_class, techniques):
    def make(maximize):
        return make_training(lambda p: optimizer_class(p, lr=20.0, maximize=maximize), techniques)

    (down, descent), (up, ascent) = make(maximize=False), make(maximize=True)
    seen, expected = [], []
    watch_rates(descent, expected)
    watch_rates(ascent, seen)
    for step in range(3):
        for network, sign in ((down, 1), (up, -1)):
            network.zero_grad()
            (sign * network(make_batch(step)).square().mean()).backward()
        descent.step()
        ascent.step()
    torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(weights_of(up), weights_of(down))
    if "olr" in techniques:
        assert min(seen[0]) < 20


def test_coupled_weight_decay_comes_after_both():
    network, optimizer = make_training(lambda p: SGD(p, lr=20.0, weight_decay=0.1))
    seen = []
    watch_rates(optimizer, seen)
    backward(network)
    before = network.conv.weight.detach().clone()
    orthogonal = nearest_orthogonal_gradient(network.conv.weight.grad)
    rate = optimal_learning_rate(before, orthogonal, 20.0).item()
    optimizer.step()
    assert seen[0][1] == pytest.approx(rate)
    expected = before - rate * (orthogonal + 0.1 * before)
    torch.testing.assert_close(network.conv.weight.detach(), expected)


# Kinds of optimizers

REFUSED = ("ASGD", "Adafactor", "LBFGS", "Rprop", "SparseAdam")  # see test_refusals.py
OPTIMIZERS = [
    (kind, options)
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    if name not in ("Optimizer", *REFUSED)
    for options in ({}, {"foreach": True}, {"fused": True}, {"maximize": True})
    if options.keys() <= signature(kind).parameters.keys()
]


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
def test_every_optimizer_of_torch_uses_the_rates_of_its_steps(kind, options):
    sign = -1 if "maximize" in options else 1
    generator = torch.Generator().manual_seed(0)
    weight, twin = (nn.Parameter(torch.eye(3, 4)) for _ in range(2))
    optimizer, plain = kind([weight], lr=10.0, **options), kind([twin], lr=10.0, **options)
    attach(optimizer, {"weight": weight}, ["olr"])
    seen = []
    watch_rates(optimizer, seen)
    for scale in (1.0, 10.0, 0.5):
        descent = weight.detach() + torch.rand(3, 4, generator=generator)
        weight.grad = sign * scale * descent
        twin.grad = weight.grad.clone()
        optimizer.step()
        plain.param_groups[0]["lr"] = seen[-1][0]
        plain.step()
        torch.testing.assert_close(weight, twin)
    assert len({rate for (rate,) in seen}) == 3
    assert max(seen) < [10.0]


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
        lambda parameters: torch.optim.Adamax(parameters, lr=2.0, foreach=True),
        lambda parameters: Adam(parameters, lr=torch.tensor(2.0), weight_decay=0.1, amsgrad=True),
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
    still = list(map(torch.equal, before, weights_of(network)))
    # in bfloat16 a step may be too small for a weight
    assert not (all if dtype is torch.bfloat16 else any)(still)


@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nog", "olr"], ["nou"], ["nou", "olr"]])
@pytest.mark.parametrize("optimizer_class", [SGD, Adam, AdamW])
def test_a_step_does_not_wait_for_a_tensor(optimizer_class, techniques, count_scalars):
    network, optimizer = make_training(
        lambda parameters: optimizer_class(parameters, lr=0.5, fused=True), techniques
    )
    train(network, optimizer, 1)
    network(make_batch(1)).square().mean().backward()
    with count_scalars() as count:
        optimizer.step()
    assert count.calls == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:This instance was constructed with capturable=True")
@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nog", "olr"], ["nou", "olr"]])
@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda parameters: SGD(parameters, lr=0.5, fused=True),
        lambda parameters: Adam(parameters, lr=0.5, fused=True),
        lambda parameters: Adam(parameters, lr=torch.tensor(0.5, device="cuda"), fused=True),
        lambda parameters: Adam(parameters, lr=0.5, capturable=True),
    ],
)
def test_a_step_on_this_gpu_does_not_wait(make_optimizer, techniques):
    network = Network().cuda()
    optimizer = make_optimizer(network.parameters())
    attach(optimizer, resolve_parameters(network, NAMES), techniques)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()  # handles of libraries are made at the first step
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_counter_counts(count_scalars):
    with count_scalars() as count:
        float(torch.ones(()) + 1)
        bool(torch.ones(()) > 0)
    assert count.calls >= 2


@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nog", "olr"]])
def test_a_differentiable_step_passes_gradcheck(techniques):
    def step(weight, gradient, rate):
        weight = weight.clone()
        weight.retain_grad()
        weight.grad = gradient.clone()
        optimizer = SGD([weight], lr=rate, differentiable=True)
        with attach(optimizer, {"weight": weight}, techniques):
            optimizer.step()
        return weight

    weight, noise = torch.randn(2, 3, 4, dtype=torch.float64)
    gradient, rate = weight + noise, torch.tensor(10.0, dtype=torch.float64)
    arguments = [tensor.detach().requires_grad_() for tensor in (weight, gradient, rate)]
    assert torch.autograd.gradcheck(step, arguments)


@pytest.mark.parametrize("techniques", [["nog", "olr"], ["nou", "olr"]])
def test_compiled_networks_and_steps(techniques):
    plain, plain_optimizer = make_training(lambda p: Adam(p, lr=0.5, fused=True), techniques)
    network, optimizer = make_training(lambda p: Adam(p, lr=0.5, fused=True), [])
    compiled = torch.compile(network, backend="eager")
    attach(optimizer, resolve_parameters(compiled, NAMES), techniques)
    step = torch.compile(optimizer.step, backend="eager")
    for seed in range(2):
        backward(plain, seed)
        plain_optimizer.step()
        backward(compiled, seed)
        step()
    torch.testing.assert_close(weights_of(network), weights_of(plain), atol=1e-5, rtol=1e-5)
