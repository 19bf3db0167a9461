"""OW and SN on every kind of layer, alone and with the other techniques."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from disentangle.linalg import polar_factor
from disentangle.models.layers import SubspaceLayer
from disentangle.orthogonality import (
    WEIGHT_CONSTRAINTS,
    as_matrix,
    attach,
    constrain_weight,
    optimal_learning_rate,
    orthogonal_loss,
    resolve_parameters,
)

LAYERS = {
    "linear": lambda: (nn.Linear(10, 4), "weight"),
    "tall linear": lambda: (nn.Linear(4, 10), "weight"),
    "conv": lambda: (nn.Conv2d(3, 8, 3), "weight"),
    "transposed conv": lambda: (nn.ConvTranspose2d(4, 3, 3, stride=2), "weight"),
    "subspace": lambda: (SubspaceLayer(basis_dim=4, feature_dim=30), "U"),
}
INPUTS = {
    "linear": (2, 10),
    "tall linear": (2, 4),
    "conv": (2, 3, 5, 5),
    "transposed conv": (2, 4, 5, 5),
    "subspace": (2, 4),
}
COMBINATIONS = [
    c
    for n in range(4)
    for c in itertools.combinations(("nog", "nou", "olr", "ol"), n)
    if not {"nog", "nou"} <= set(c)
]


@pytest.fixture(params=LAYERS)
def kind(request):
    return request.param


def sigmas(weight):
    return torch.linalg.svdvals(as_matrix(weight.detach()).double())


def check_constraint(weight, constraint, lag=1e-6):
    """Whether all singular values are 1, or the largest one is but for the lag in training."""
    if constraint.startswith("ortho"):
        assert (sigmas(weight) - 1).abs().max() < 1e-6
    else:
        assert -1e-6 < sigmas(weight)[0] - 1 < lag


@pytest.mark.parametrize("constraint", WEIGHT_CONSTRAINTS[1:])
def test_the_matrix_that_nog_sees_is_constrained(kind, constraint):
    layer, name = LAYERS[kind]()
    parameter = getattr(layer, name)
    before = parameter.detach().clone()
    output = layer(torch.ones(INPUTS[kind]))
    assert constrain_weight(layer, name, constraint) is layer
    weight = getattr(layer, name)
    check_constraint(weight, constraint)
    expected = before / sigmas(before)[0]
    if constraint != "spectral":
        expected = polar_factor(as_matrix(before)).view_as(before)
    torch.testing.assert_close(weight, expected.float(), atol=1e-6, rtol=0)
    # The parameter is the one that an optimizer made before would hold.
    assert resolve_parameters(layer, [name]) == {name: parameter}
    assert layer(torch.ones(INPUTS[kind])).shape == output.shape


def test_free_changes_nothing(kind):
    layer, name = LAYERS[kind]()
    names = dict(layer.named_parameters())
    assert constrain_weight(layer, name, "free") is layer
    assert dict(layer.named_parameters()) == names
    assert not parametrize.is_parametrized(layer)


@pytest.mark.parametrize("constraint", WEIGHT_CONSTRAINTS)
@pytest.mark.parametrize("techniques", COMBINATIONS, ids=lambda names: "+".join(names) or "none")
def test_every_combination_of_techniques(kind, constraint, techniques):
    layer, name = LAYERS[kind]()
    constrain_weight(layer, name, constraint)
    targets = resolve_parameters(layer, [name])
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2, fused=True)
    attach(optimizer, targets, set(techniques) - {"ol"})
    before = targets[name].detach().clone()
    for _ in range(4):
        optimizer.zero_grad()
        loss = (layer(torch.randn(INPUTS[kind])) - 1).square().mean()
        if "ol" in techniques:
            loss = loss + orthogonal_loss(targets.values())
        loss.backward()
        if "nog" in techniques:
            gradient = targets[name].grad.clone()
        optimizer.step()
    if "nog" in techniques:
        expected = polar_factor(as_matrix(gradient)).view_as(gradient)
        torch.testing.assert_close(targets[name].grad, expected, atol=1e-5, rtol=0)
    assert all(parameter.isfinite().all() for parameter in layer.parameters())
    assert not torch.equal(targets[name], before)
    if constraint != "free":
        check_constraint(getattr(layer, name), constraint, lag=0.05)


def test_ol_keeps_the_free_parameter_well_conditioned():
    def train(weight):
        torch.manual_seed(0)
        layer = constrain_weight(nn.Linear(10, 4, bias=False), "weight", "orthogonal")
        free = resolve_parameters(layer, ["weight"])["weight"]
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            loss = (layer.weight * torch.randn(4, 10)).sum() + weight * orthogonal_loss([free])
            loss.backward()
            optimizer.step()
        return sigmas(free)

    alone, held = train(0), train(100)
    assert alone[0] > 3
    assert (held - 1).abs().max() < 0.3


def test_torch_takes_another_matrix_of_a_transposed_convolution():
    layer = nn.ConvTranspose2d(4, 3, 3)
    weight = layer.weight.detach().clone()
    torch_norm = torch.linalg.matrix_norm(weight.transpose(0, 1).flatten(1), ord=2)
    ours = constrain_weight(layer, "weight", "spectral").weight
    torch.testing.assert_close(ours, weight / sigmas(weight)[0].float())
    assert abs(torch_norm - sigmas(weight)[0]) > 1e-2
    # On the same matrix, ours is torch's.
    linear = nn.Linear(30, 5)
    reference = spectral_norm(nn.Linear(30, 5), n_power_iterations=2000)
    reference.weight = linear.weight.detach()
    constrain_weight(linear, "weight", "spectral")
    torch.testing.assert_close(linear.weight, reference.weight, atol=1e-4, rtol=1e-3)


def test_a_copy_is_on_its_own():
    layer = constrain_weight(nn.Linear(10, 4), "weight", "orthogonal")
    copied = copy.deepcopy(layer)
    with torch.no_grad():
        copied.parametrizations.weight.original.normal_()
    assert not torch.equal(copied.weight, layer.weight)
    check_constraint(copied.weight, "orthogonal")


@pytest.mark.parametrize(
    ("name", "constraint", "message"),
    [
        (
            "weight",
            "unitary",
            "one of free, orthogonal, orthonormal_kernel, spectral, got 'unitary'",
        ),
        ("wait", "orthogonal", "Linear has no parameter 'wait' of its own"),
        ("in_features", "spectral", "Linear has no parameter 'in_features' of its own"),
        ("bias", "orthogonal", r"at least 2 dimensions.*got shape \(4,\)"),
        ("bias", "spectral", r"at least 2 dimensions.*got shape \(4,\)"),
    ],
)
def test_bad_arguments(name, constraint, message):
    layer = nn.Linear(10, 4)
    with pytest.raises(ValueError, match=message):
        constrain_weight(layer, name, constraint)
    assert not parametrize.is_parametrized(layer)


# Transforms of torch.func


def functional_loss(layer, kind):
    """A loss of the parameters and an input, the parameters, and inputs."""
    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,)).square().sum()

    return loss, parameters, torch.randn(3, *INPUTS[kind])


@pytest.mark.parametrize("constraint", ["orthogonal", "spectral"])
def test_transforms_of_torch_func(kind, constraint):
    layer, name = LAYERS[kind]()
    loss, parameters, inputs = functional_loss(
        constrain_weight(layer, name, constraint).double().eval(), kind
    )
    inputs = inputs.double()
    leaves = {key: value.clone().requires_grad_() for key, value in parameters.items()}
    expected = [torch.autograd.grad(loss(leaves, x), list(leaves.values())) for x in inputs]
    per_sample = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, inputs)
    for key, gradients in zip(leaves, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(per_sample[key], torch.stack(gradients))
    directions = {key: torch.randn_like(value) for key, value in parameters.items()}
    _, slope = torch.func.jvp(lambda p: loss(p, inputs[0]), (parameters,), (directions,))
    gradient = dict(zip(leaves, expected[0], strict=True))
    torch.testing.assert_close(slope, sum((gradient[k] * directions[k]).sum() for k in leaves))
    models = {key: torch.stack([value, 2 * value + 1]) for key, value in parameters.items()}
    ensemble = torch.vmap(loss, in_dims=(0, None))(models, inputs[0])
    alone = [loss({key: value[i] for key, value in models.items()}, inputs[0]) for i in (0, 1)]
    torch.testing.assert_close(ensemble, torch.stack(alone))


def test_unsupported_transforms_are_named():
    orthogonal = constrain_weight(nn.Linear(10, 4), "weight", "orthogonal")
    loss, parameters, inputs = functional_loss(orthogonal, "linear")
    with pytest.raises(RuntimeError, match=r"polar_factor has no second derivative.*func.hessian"):
        torch.func.hessian(loss)(parameters, inputs[0])
    spectral = constrain_weight(nn.Linear(10, 4), "weight", "spectral")
    loss, parameters, inputs = functional_loss(spectral, "linear")
    models = {key: torch.stack([value, value]) for key, value in parameters.items()}
    for transformed in (
        lambda: torch.func.grad(loss)(parameters, inputs[0]),
        lambda: torch.func.jvp(lambda p: loss(p, inputs[0]), (parameters,), (parameters,)),
        lambda: torch.vmap(loss, in_dims=(0, None))(models, inputs[0]),
    ):
        vector = spectral.parametrizations.weight[0].sigma.u.clone()
        with pytest.raises(RuntimeError, match=r"torch.func.grad, vmap and jvp .*: call eval\(\)"):
            transformed()
        assert torch.equal(spectral.parametrizations.weight[0].sigma.u, vector)
    spectral.eval()
    assert torch.func.hessian(loss)(parameters, inputs[0])


@pytest.mark.parametrize("constraint", ["orthogonal", "spectral"])
def test_bad_weights(constraint):
    layer = nn.Linear(10, 4)
    nn.init.zeros_(layer.weight)
    with pytest.raises(ValueError, match=r"rank 0|zero or not finite"):
        constrain_weight(layer, "weight", constraint)
    assert not parametrize.is_parametrized(layer)
    layer.weight = nn.Parameter(torch.randn(4, 10, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"'weight' must be floating point, got torch\.complex64"):
        constrain_weight(layer, "weight", constraint)
    layer = nn.Linear(10, 4)
    constrain_weight(layer, "weight", constraint)
    with pytest.raises(ValueError, match="'weight' of ParametrizedLinear is parametrized already"):
        constrain_weight(layer, "weight", constraint)


# The names of parametrized weights


def test_a_constrained_weight_is_found_by_its_name_through_wrappers():
    inner = nn.Sequential(
        constrain_weight(nn.Linear(3, 2), "weight", "orthogonal"), nn.Linear(2, 2)
    )
    free = inner[0].parametrizations.weight.original
    wrapped = nn.ModuleDict({"module": inner})
    for name in ("0.weight", "module.0.weight", "0.parametrizations.weight.original"):
        assert resolve_parameters(wrapped, [name]) == {name: free}
    assert resolve_parameters(inner[0], ["weight"]) == {"weight": free}
    with pytest.raises(ValueError, match=r"'weight' names 2 parameters: module.0.weight, module.1"):
        resolve_parameters(wrapped, ["weight"])
    with pytest.raises(ValueError, match="are the same parameter: name it once"):
        resolve_parameters(wrapped, ["0.weight", "0.parametrizations.weight.original"])


def test_a_parametrization_of_torch_is_found_too():
    layer = spectral_norm(nn.Linear(3, 2))
    found = resolve_parameters(layer, ["weight"])
    assert found == {"weight": layer.parametrizations.weight.original}


def test_a_weight_of_two_free_parameters_has_no_name_of_its_own():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="no parameter is named 'weight'"):
        resolve_parameters(layer, ["weight"])
    name = "parametrizations.weight.original1"
    assert resolve_parameters(layer, [name]) == {name: layer.parametrizations.weight.original1}


@pytest.mark.parametrize("constraint", ["orthogonal", "spectral"])
@pytest.mark.parametrize("shape", [(6, 64), (30, 8), (64, 576)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_olr_does_not_take_rounding_for_a_direction(constraint, shape, dtype):
    layer = constrain_weight(nn.Linear(*shape[::-1], bias=False).to(dtype), "weight", constraint)
    (free,) = layer.parameters()
    for _ in range(20):
        layer.zero_grad()
        (layer(torch.randn(16, shape[1], dtype=dtype)) - 1).square().mean().backward()
        # The gradient is at a right angle to a weight whose scale has no effect.
        assert optimal_learning_rate(free, free.grad, 0.1).item() == 0.1
        free.data -= 0.01 * free.grad
