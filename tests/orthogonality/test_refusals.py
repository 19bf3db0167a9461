"""Refusals of what NOG, OLR and NOU cannot work with, with the reason."""

import pytest
import torch
from accelerate.utils.deepspeed import DummyOptim
from torch import nn
from torch.optim import LBFGS, SGD, SparseAdam, lr_scheduler

from disentangle.orthogonality import attach, resolve_parameters

NAMES = ("first.weight", "last.weight")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.first(x).tanh())


def named(name, module, *bases):
    """A class of another package, which need not be installed."""
    return type(name, bases, {"__module__": module})


# When techniques are attached


def test_names_of_techniques():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    parameters = resolve_parameters(network, NAMES)
    for name in ("ol", "ow", "svd", ""):
        with pytest.raises(
            ValueError, match=f"{name!r} is no technique.*choose from nog, olr, nou"
        ):
            attach(optimizer, parameters, ["nog", name])
    with pytest.raises(ValueError, match="list of names, got the string 'nog'"):
        attach(optimizer, parameters, "nog")
    assert len(optimizer.param_groups) == 1


def test_the_scale_of_nog():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    parameters = resolve_parameters(network, NAMES)
    with pytest.raises(ValueError, match="nog_scale must be one of unit, gradient, got 'norm'"):
        attach(optimizer, parameters, ["nog"], nog_scale="norm")
    for techniques, named in ([], "none"), (["olr"], "olr"), (["nou", "olr"], "olr, nou"):
        with pytest.raises(ValueError, match=f"gradient requires the technique nog, got {named}"):
            attach(optimizer, parameters, techniques, nog_scale="gradient")
    attach(optimizer, parameters, ["olr"], nog_scale="unit")


def test_a_parameter_that_the_optimizer_does_not_hold():
    network = Network()
    optimizer = SGD(network.first.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"does not hold the parameter 'last.weight'"):
        attach(optimizer, resolve_parameters(network, NAMES), ["olr"])
    with pytest.raises(ValueError, match=r"at least one parameter to attach to, got none"):
        attach(optimizer, {}, ["olr"])
    assert len(optimizer.param_groups) == 1


def test_a_parameter_that_is_no_matrix():
    bias = nn.Parameter(torch.ones(35))
    with pytest.raises(ValueError, match=r"'bias' must have at least 2 .*got shape \(35,\).*FSDP1"):
        attach(SGD([bias], lr=0.1), {"bias": bias}, ["nog"])
    waves = nn.Parameter(torch.ones(3, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"'waves' must be floating point, got torch.complex64"):
        attach(SGD([waves], lr=0.1), {"waves": waves}, ["nog"])


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
    attach(optimizer, resolve_parameters(network, NAMES), [])
    attach(optimizer, resolve_parameters(network, NAMES[:1]), ["olr"])
    with pytest.raises(ValueError, match=r"'first.weight' already has techniques"):
        attach(optimizer, resolve_parameters(network, NAMES), ["nog"])
    attach(optimizer, resolve_parameters(network, NAMES[1:]), ["nog", "olr"])


@pytest.mark.parametrize(
    "kind",
    [
        named("DeepSpeedZeroOptimizer", "deepspeed.runtime.zero.stage_1_and_2", object),
        named("FusedAdam", "deepspeed.ops.adam.fused_adam", torch.optim.Adam),
        named("DeepSpeedOptimizerWrapper", "accelerate.utils.deepspeed", torch.optim.SGD),
        DummyOptim,
    ],
)
def test_deepspeed(kind):
    network = Network()
    optimizer = object.__new__(kind)
    with pytest.raises(ValueError, match=rf"{kind.__name__} is an optimizer of DeepSpeed.*flatten"):
        attach(optimizer, resolve_parameters(network, NAMES), ["nog"])


def test_what_is_no_optimizer():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1)
    for wrong, name in [(network, "Network"), (network.parameters(), "generator"), (None, "None")]:
        with pytest.raises(ValueError, match=rf"expected a torch.optim.Optimizer, got {name}"):
            attach(wrong, resolve_parameters(network, NAMES), ["nog"])
    with pytest.raises(ValueError, match=r"expected the optimizer itself, got StepLR"):
        attach(scheduler, resolve_parameters(network, NAMES), ["nog"])


def test_optimizers_whose_steps_the_techniques_do_not_reach():
    class Wrapped(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

    network = Network()
    parameters = resolve_parameters(network, NAMES)
    wrapped = Wrapped(SGD(network.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"got Wrapped.*before accelerator.prepare"):
        attach(wrapped, parameters, ["nog"])
    with pytest.raises(ValueError, match="LBFGS computes gradients anew"):
        attach(LBFGS(network.parameters()), parameters, ["nog"])
    for techniques in (["nog"], ["olr"]):
        with pytest.raises(ValueError, match="SparseAdam takes sparse gradients only"):
            attach(SparseAdam(list(network.parameters())), parameters, techniques)


class Homemade(torch.optim.Optimizer):
    """Steps by the rate that it was constructed with, as a number, times that of its group."""

    def __init__(self, params, lr=0.1, power=0, convert=lambda rate: rate):
        super().__init__(params, {"lr": lr, "power": power, "convert": convert})
        self.lr = lr

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            rate = self.lr * group["convert"](group["lr"]) ** group["power"]
            for parameter in group["params"]:
                parameter.sub_(rate * parameter.grad)


class Demanding(Homemade):
    def __init__(self, params, model):
        super().__init__(params)


def to_number(rate):
    if isinstance(rate, torch.Tensor):
        raise TypeError("expected a number")
    return rate


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"maximize": True}, {"foreach": True}])
@pytest.mark.parametrize("kind", [torch.optim.ASGD, torch.optim.Rprop, torch.optim.Adafactor])
def test_optimizers_that_do_not_step_by_the_rate_of_the_step(kind, options, dtype):
    network = Network().to(dtype)
    optimizer = kind(network.parameters(), lr=0.1, **options)
    parameters = resolve_parameters(network, NAMES)
    expected = rf"steps of {kind.__name__} are not proportional to it \(twice the rate, 1 times"
    with pytest.raises(ValueError, match=expected):
        attach(optimizer, parameters, ["nog", "olr"])
    assert len(optimizer.param_groups) == 1
    assert not optimizer.state
    attach(optimizer, parameters, ["nog"])


def test_optimizers_of_others_are_tried_too():
    network = Network()
    parameters = resolve_parameters(network, NAMES)

    def attach_to(kind, **options):
        return attach(kind(network.parameters(), **options), parameters, ["olr"])

    attach_to(Homemade, power=1)
    with pytest.raises(ValueError, match=r"Homemade are not.*twice the rate, 1 times"):
        attach_to(Homemade)
    with pytest.raises(ValueError, match=r"Homemade are not.*twice the rate, 1.4 times"):
        attach_to(Homemade, power=0.5)
    with pytest.raises(ValueError, match="with which Homemade cannot step: expected a number"):
        attach_to(Homemade, power=1, convert=to_number)
    # Nothing can be told of one that needs more than its options.
    with pytest.warns(UserWarning, match="olr could not verify that steps of Demanding"):
        attach_to(Demanding, model=network)
    optimizer = SGD(network.parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = None
    with pytest.raises(ValueError, match=r"with a learning rate, got SGD without one"):
        attach(optimizer, parameters, ["olr"])


@pytest.mark.parametrize(
    ("overlap", "techniques", "allowed"),
    [
        (False, ["nog"], True),
        (False, ["olr"], False),
        (False, ["nog", "olr"], False),
        (False, ["nou"], False),
        (True, ["nog"], False),
    ],
)
def test_zero_redundancy_optimizer(overlap, techniques, allowed):
    kind = named("ZeroRedundancyOptimizer", "torch.distributed.optim", SGD)
    network = Network()
    optimizer = kind(network.parameters(), lr=0.1)
    optimizer._overlap_with_ddp = overlap
    parameters = resolve_parameters(network, NAMES)
    if allowed:
        attach(optimizer, parameters, techniques)
    else:
        with pytest.raises(ValueError, match="ZeroRedundancyOptimizer steps an optimizer inside"):
            attach(optimizer, parameters, techniques)
    assert len(optimizer.param_groups) == 1


# At a step


def test_a_closure():
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    attach(optimizer, resolve_parameters(network, NAMES), ["nog"])
    for call in (lambda: optimizer.step(lambda: 0.0), lambda: optimizer.step(closure=lambda: 0.0)):
        with pytest.raises(ValueError, match="without a closure"):
            call()
    optimizer.step(closure=None)


@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nou"]])
def test_a_sparse_gradient(techniques):
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = SGD(embedding.parameters(), lr=0.1)
    attach(optimizer, {"words": embedding.weight}, techniques)
    embedding(torch.tensor([1, 3])).sum().backward()
    before = embedding.weight.detach().clone()
    with pytest.raises(ValueError, match=r"'words' must be dense, got torch.sparse_coo.*=False"):
        optimizer.step()
    assert torch.equal(embedding.weight, before)


@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nou"]])
def test_parameters_that_were_replaced_in_the_optimizer(techniques):
    """As Accelerate does for FSDP2, and DeepSpeed."""
    network = Network()
    optimizer = SGD(network.parameters(), lr=0.1)
    attach(optimizer, resolve_parameters(network, NAMES), techniques)
    for group in optimizer.param_groups:
        group["params"] = [nn.Parameter(p.detach().clone()) for p in group["params"]]
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ValueError, match=r"another parameter in place of 'first.weight'.*FSDP2"):
        optimizer.step()
