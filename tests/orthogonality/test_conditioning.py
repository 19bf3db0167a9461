import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import parametrizations

from disentangle.models.layers.covariance_pooling import CovarianceRoot
from disentangle.models.layers.decorrelated_batch_norm import DecorrelatedBatchNorm2d
from disentangle.models.layers.joint_batch_norm import JointBatchNorm2d
from disentangle.orthogonality import (
    SkewOrthogonalConv2d,
    attach,
    constrain_weight,
    resolve_parameters,
)
from disentangle.orthogonality.conditioning import (
    MEASURES,
    MEASURES_OF,
    QUANTITIES,
    ConditioningProbe,
    covariance_conditioning,
    gradient_conditioning,
    measure_name,
    split_measure_name,
    weight_conditioning,
)

# How many measures there are of a weight or gradient, and of a covariance.
MATRIX, COVARIANCE = len(MEASURES_OF["weight"]), len(MEASURES_OF["covariance"])
few = settings(max_examples=30, deadline=None, derandomize=True)


def make_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Flatten()
    )


def run_backward(network, seed=0):
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    network.zero_grad()
    network(images).square().mean().backward()
    return images


def as_numbers(measures):
    return {name: value.item() for name, value in measures.items()}


# Weights


def test_an_orthonormal_weight():
    for shape in [(6, 40), (40, 6), (8, 2, 3, 3)]:
        weight = nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64))
        measured = weight_conditioning(weight)
        assert measured.condition.item() == pytest.approx(1)
        assert measured.nonnull_condition.item() == pytest.approx(1)
        assert measured.effective_rank.item() == pytest.approx(min(shape[0], weight[0].numel()))
        assert measured.orthogonality_error.item() == pytest.approx(0, abs=1e-12)


def test_a_weight_of_known_singular_values():
    weight = torch.zeros(3, 5)
    weight[range(3), range(3)] = torch.tensor([2.0, 1.0, 0.5])
    measured = weight_conditioning(weight)
    assert measured.condition.item() == 16  # the square of σmax / σmin
    assert measured.nonnull_condition.item() == 16
    shares = [4 / 5.25, 1 / 5.25, 0.25 / 5.25]
    entropy = -sum(share * math.log(share) for share in shares)
    assert measured.effective_rank.item() == pytest.approx(math.exp(entropy))
    assert measured.orthogonality_error.item() == pytest.approx(math.sqrt((9 + 0.5625) / 3))
    weight[2, 2] = 0
    measured = weight_conditioning(weight)
    assert measured.condition.item() == math.inf
    assert measured.nonnull_condition.item() == 4


@few
@given(st.integers(1, 8), st.integers(1, 20), st.integers(0, 99))
def test_the_orthogonality_error_is_the_norm_in_its_definition(m, n, seed):
    W = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gram = W @ W.mT if m <= n else W.mT @ W
    expected = torch.linalg.matrix_norm(gram - torch.eye(len(gram))) / math.sqrt(len(gram))
    assert weight_conditioning(W).orthogonality_error.item() == pytest.approx(expected.item())


def test_measures_are_scalars_without_a_graph():
    weight = nn.Parameter(torch.randn(4, 6, dtype=torch.float16))
    for measured in (
        weight_conditioning(weight),
        gradient_conditioning(weight),
        covariance_conditioning(weight),
    ):
        for value in measured:
            assert value.shape == ()
            assert value.dtype == torch.float64
            assert not value.requires_grad


# Gradients


def test_a_gradient_is_measured_whatever_its_scale():
    gradient = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    for scale in (1.0, 1e-9, 2.0**16):
        measured = gradient_conditioning(scale * gradient)
        assert measured.condition.item() == pytest.approx(4)
        # Eigenvalues 1.6 and 0.4.
        assert measured.orthogonality_error.item() == pytest.approx(0.6)


def test_a_gradient_of_rank_one_and_one_of_zero():
    measured = gradient_conditioning(torch.ones(4, 7))
    assert measured.condition.item() == math.inf
    assert measured.nonnull_condition.item() == 1
    assert measured.effective_rank.item() == pytest.approx(1)
    assert measured.orthogonality_error.item() == pytest.approx(math.sqrt(3))
    measured = gradient_conditioning(torch.zeros(4, 7))
    assert measured.condition.item() == math.inf
    assert measured.nonnull_condition.isnan()
    assert measured.effective_rank.item() == 0
    assert measured.orthogonality_error.isnan()


def test_a_gradient_that_overflowed_is_not_a_number():
    assert all(value.isnan() for value in gradient_conditioning(torch.tensor([[1.0, torch.inf]])))


# Covariances


def test_features_of_known_covariance():
    generator = torch.Generator().manual_seed(0)
    white = torch.linalg.qr(torch.randn(200, 4, generator=generator, dtype=torch.float64))[0]
    white -= white.mean(dim=0)
    white = torch.linalg.qr(white)[0] * math.sqrt(200)
    measured = covariance_conditioning(white + 7)
    assert measured.condition.item() == pytest.approx(1)
    assert measured.orthogonality_error.item() == pytest.approx(0, abs=1e-12)
    features = white * torch.tensor([3.0, 1.0, 1.0, 0.5]) + 7
    assert covariance_conditioning(features).condition.item() == pytest.approx(36)
    measured = covariance_conditioning(features, eps=0.25)
    assert measured.condition.item() == pytest.approx(9.25 / 0.5)
    # What `eps` does not enter.
    assert measured.nonnull_condition.item() == pytest.approx(36)
    assert measured[1:5] == covariance_conditioning(features)[1:5]


def test_the_normalised_condition_does_not_depend_on_the_scale():
    features = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).double()
    features[:, 3] = features[:, 0]  # singular
    covariance = features.mT.cov(correction=0)
    expected = covariance / (covariance.trace() / 4) + 0.01 * torch.eye(4)
    for scale in (1e-3, 1.0, 1e3):
        measured = covariance_conditioning(scale * features, eps=0.01)
        found = measured.normalised_condition.item()
        assert found == pytest.approx(torch.linalg.cond(expected).item())
        assert measured.norm.item() == pytest.approx(scale * covariance.trace().sqrt().item())
    assert covariance_conditioning(features).normalised_condition.item() == math.inf
    whole = covariance_conditioning(features[:, :3])
    assert whole.normalised_condition.item() == pytest.approx(whole.condition.item())
    constant = covariance_conditioning(torch.ones(5, 3), eps=0.01)
    assert (constant.condition.item(), constant.norm.item()) == (1, 0)
    assert constant.normalised_condition.isnan()


@pytest.mark.parametrize("measure", [weight_conditioning, gradient_conditioning])
def test_the_norm_is_that_of_the_tensor(measure):
    for shape in [(4, 7), (7, 4), (4, 2, 3, 3)]:
        tensor = torch.randn(shape)
        assert measure(tensor).norm.item() == pytest.approx(tensor.norm().item())
        assert measure(1e-9 * tensor).norm.item() == pytest.approx(1e-9 * tensor.norm().item())
    assert measure(torch.zeros(3, 4)).norm.item() == 0


def test_the_channels_of_images_are_the_features():
    images = torch.randn(6, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    flat = images.permute(0, 2, 3, 1).reshape(-1, 4)
    expected = covariance_conditioning(flat)
    assert covariance_conditioning(images) == expected
    covariance = flat.double().mT.cov(correction=0)
    assert expected.condition.item() == pytest.approx(torch.linalg.cond(covariance).item())
    assert covariance_conditioning(images.to(memory_format=torch.channels_last)) == expected


def test_a_convolution_with_more_channels_than_inputs():
    conv = nn.Conv2d(3, 64, 3, bias=False)
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    measured = covariance_conditioning(conv(images), eps=1e-2)
    largest = torch.linalg.eigvalsh(conv(images).movedim(1, 0).flatten(1).double().cov())[-1]
    assert covariance_conditioning(conv(images)).condition.item() == math.inf
    assert measured.condition.item() == pytest.approx(largest.item() / 1e-2 + 1, rel=1e-2)
    assert 1 < measured.nonnull_condition < 1e3
    assert 1 < measured.effective_rank < 27.5


def test_features_say_what_they_expect():
    with pytest.raises(ValueError, match=r"features must be \(N, C\).*got shape \(4,\)"):
        covariance_conditioning(torch.ones(4))
    nested = torch.nested.nested_tensor([torch.ones(3, 4), torch.ones(2, 4)], layout=torch.jagged)
    with pytest.raises(ValueError, match=r"a dense tensor, got a nested tensor"):
        covariance_conditioning(nested, channel_axis=-1)
    with pytest.raises(ValueError, match=r"no channel axis 2, got shape \(4, 3\)"):
        covariance_conditioning(torch.ones(4, 3), channel_axis=2)
    with pytest.raises(ValueError, match=r"eps must not be negative, got -1"):
        covariance_conditioning(torch.ones(4, 4), eps=-1)
    with pytest.raises(ValueError, match=r"floating point, got torch.int64"):
        covariance_conditioning(torch.ones(4, 4, dtype=torch.int64))


# The probe


def test_a_plain_loop():
    network = make_network()
    parameters = resolve_parameters(network, ["0.weight"])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    probe = ConditioningProbe(network, parameters, outputs={"0": 0.0})
    for step in range(3):
        images = run_backward(network, seed=step)
        expected = {
            "0.weight/weight": weight_conditioning(network[0].weight),
            "0.weight/gradient": gradient_conditioning(network[0].weight.grad),
            "0/covariance": covariance_conditioning(network[0](images)),
        }
        run_backward(network, seed=step)
        measures = probe.record()
        optimizer.step()
        assert as_numbers(measures) == {
            f"conditioning/{key}/{name}": value.item()
            for key, measured in expected.items()
            for name, value in measured._asdict().items()
        }


def test_the_gradient_is_that_before_the_techniques():
    network = make_network()
    parameters = resolve_parameters(network, ["0.weight"])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    attach(optimizer, parameters, ["nog"])
    probe = ConditioningProbe(network, parameters)
    run_backward(network)
    condition = probe.record()["conditioning/0.weight/gradient/condition"]
    optimizer.step()
    assert condition > 1.5
    assert gradient_conditioning(network[0].weight.grad).condition.item() == pytest.approx(1)


def test_only_what_there_is_is_recorded():
    network = make_network()
    parameters = resolve_parameters(network, ["0.weight"])
    probe = ConditioningProbe(network, parameters, inputs={"1": 0.0})
    kinds = {name.split("/")[2] for name in probe.record()}
    assert kinds == {"weight"}
    run_backward(network)
    assert {name.split("/")[2] for name in probe.record()} == set(QUANTITIES)
    # What a module saw in an earlier step is not what it saw in this one.
    assert {name.split("/")[2] for name in probe.record()} == {"weight", "gradient"}


def test_inputs_and_outputs_of_several_modules():
    network = make_network()
    seen = {}
    for i in (0, 1, 2):  # the last of them works in place
        network[i].register_forward_hook(
            lambda module, args, output, i=i: seen.update({i: (args[0].clone(), output.clone())})
        )
    probe = ConditioningProbe(
        network, inputs={"0": 0.5, "1": 0.25}, outputs={"2": 0.0}, channel_axes={"2": 1}
    )
    run_backward(network)
    measures = as_numbers(probe.record())
    before_relu = network[1](seen[1][0])
    for layer, features, eps in [
        ("0", seen[0][0], 0.5),
        ("1", seen[1][0], 0.25),
        ("2", before_relu.relu(), 0.0),
    ]:
        expected = covariance_conditioning(features, eps=eps)
        for name, value in expected._asdict().items():
            measured = measures[measure_name(layer, "covariance", name)]
            assert measured == pytest.approx(value.item(), rel=1e-6, nan_ok=True)
    assert len(measures) == 3 * COVARIANCE


def test_features_are_measured_before_they_are_changed_in_place():
    network = make_network()
    images = run_backward(network)
    probe = ConditioningProbe(network, outputs={"1": 0.0})
    run_backward(network)
    measured = probe.record()["conditioning/1/covariance/effective_rank"]
    network.train()
    expected = covariance_conditioning(network[:2](images)).effective_rank
    assert measured.item() == pytest.approx(expected.item())


def test_evaluation_mode():
    network = make_network().eval()
    images = torch.randn(4, 3, 4, 4)
    probe = ConditioningProbe(network, outputs={"0": 0.0})
    network(images)
    assert probe.record() == {}
    eager = ConditioningProbe(network, outputs={"0": 0.0}, training_only=False)
    network(images)
    assert len(eager.record()) == COVARIANCE


def test_every_so_many_steps():
    network = make_network()
    parameters = resolve_parameters(network, ["0.weight"])
    probe = ConditioningProbe(network, parameters, outputs={"0": 0.0}, every=3)
    records = []
    for _ in range(7):
        run_backward(network)
        records.append(len(probe.record()))
    assert records == [0, 0, 2 * MATRIX + COVARIANCE] * 2 + [0]
    probe.step = 30  # as after resuming
    run_backward(network)
    assert len(probe.record()) == 2 * MATRIX + COVARIANCE
    assert probe.step == 31


def test_removal():
    network = make_network()
    with ConditioningProbe(network, inputs={"0": 0.0}, outputs={"1": 0.0}) as probe:
        run_backward(network)
    assert len(probe.record()) == 2 * COVARIANCE
    run_backward(network)
    assert probe.record() == {}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network)


def test_a_copy_of_the_network_does_not_report_to_the_probe():
    network = make_network()
    probe = ConditioningProbe(network, outputs={"0": 0.0})
    twin = copy.deepcopy(network)
    run_backward(twin)
    assert probe.record() == {}
    run_backward(network)
    assert probe.record()


def test_nothing_waits_for_a_value(count_scalars):
    network = make_network()
    parameters = resolve_parameters(network, ["0.weight"])
    probe = ConditioningProbe(network, parameters, inputs={"1": 0.1}, outputs={"0": 0.0})
    images = torch.randn(4, 3, 4, 4)
    with count_scalars() as count:
        network(images).sum().backward()
        assert len(probe.record()) == 2 * MATRIX + 2 * COVARIANCE
    assert count.calls == 0


@pytest.mark.parametrize("constrain", ["orthogonal", "spectral", "torch"])
def test_a_parametrized_weight(constrain):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(9, 4), nn.Tanh())
    if constrain == "torch":
        parametrizations.spectral_norm(network[0])
    else:
        constrain_weight(network[0], "weight", constrain)
    free = network[0].parametrizations.weight.original
    with torch.no_grad():
        free.mul_(torch.tensor([3.0, 1.0, 1.0, 0.5])[:, None])
    probe = ConditioningProbe(network, {"0.weight": free})
    network(torch.randn(8, 9)).square().mean().backward()
    state = copy.deepcopy(network.state_dict())
    measures = as_numbers(probe.record())
    for name, tensor in network.state_dict().items():  # no power iteration, no other change
        assert torch.equal(tensor, state[name])
    assert network[0].parametrizations.weight[0].training
    network.eval()
    effective = as_numbers(weight_conditioning(network[0].weight)._asdict())
    gradient = as_numbers(gradient_conditioning(free.grad)._asdict())
    for name in MEASURES_OF["weight"]:
        assert measures[f"conditioning/0.weight/weight/{name}"] == pytest.approx(effective[name])
        assert measures[f"conditioning/0.weight/gradient/{name}"] == pytest.approx(gradient[name])
    if constrain == "orthogonal":
        assert effective["condition"] == pytest.approx(1, abs=1e-5)
        assert weight_conditioning(free).condition.item() > 4


def test_autocast_does_not_round_what_is_measured():
    network = nn.Sequential(nn.Linear(9, 4))
    constrain_weight(network[0], "weight", "orthogonal")
    free = network[0].parametrizations.weight.original
    with ConditioningProbe(network, {"0.weight": free}, outputs={"0": 0.0}) as probe:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(torch.randn(20, 9))
            measures = probe.record()
        assert output.dtype == torch.bfloat16
        error = measures["conditioning/0.weight/weight/orthogonality_error"].item()
        assert error < 1e-6
        expected = covariance_conditioning(output).effective_rank
        assert measures["conditioning/0/covariance/effective_rank"] == expected


# Dynamo's own, wherever a graph is divided at a tensor that has a gradient function.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_network():
    network = make_network()
    probe = ConditioningProbe(network, outputs={"0": 0.0})
    compiled = torch.compile(network, backend="eager")
    for seed in range(2):
        run_backward(compiled, seed)
        measured = as_numbers(probe.record())
        run_backward(network, seed)
        assert measured == as_numbers(probe.record())
        assert len(measured) == COVARIANCE


def test_parameters_that_are_divided_over_processes():
    # Without the last layer, which gives a view: FSDP2 warns of those.
    whole, network = make_network()[:-1], make_network()[:-1]
    distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
    try:
        fully_shard(network, mesh=init_device_mesh("cpu", (1,)))
        probes = [
            ConditioningProbe(module, resolve_parameters(module, ["0.weight"]))
            for module in (whole, network)
        ]
        for module in (whole, network):
            run_backward(module)
        expected, measures = (as_numbers(probe.record()) for probe in probes)
    finally:
        distributed.destroy_process_group()
    assert len(measures) == 2 * MATRIX
    assert measures == pytest.approx(expected)


def test_the_probe_says_what_it_expects():
    network = make_network()
    parameters = resolve_parameters(network, ["0.weight"])
    with pytest.raises(ValueError, match="at least one parameter or module to measure, got none"):
        ConditioningProbe(network)
    with pytest.raises(ValueError, match=r"no module is named 'conv'; there is 0, 1, 2, 3"):
        ConditioningProbe(network, outputs={"conv": 0.0})
    with pytest.raises(ValueError, match=r"does not have the parameter that is named '0.weight'"):
        ConditioningProbe(make_network(), parameters)
    with pytest.raises(ValueError, match=r"the input or the output of '0', got both"):
        ConditioningProbe(network, inputs={"0": 0.0}, outputs={"0": 0.0})
    with pytest.raises(ValueError, match=r"channel_axes must name modules among.*got '1'"):
        ConditioningProbe(network, inputs={"0": 0.0}, channel_axes={"1": -1})
    with pytest.raises(ValueError, match=r"every must be positive, got 0"):
        ConditioningProbe(network, parameters, every=0)
    with pytest.raises(ValueError, match=r"eps must not be negative, got -0.1"):
        ConditioningProbe(network, inputs={"0": -0.1})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network)


def test_a_module_that_returns_no_tensor():
    class Posterior(nn.Module):
        def forward(self, x):
            return x, x

    network = Posterior()
    with (
        ConditioningProbe(network, outputs={"": 0.0}),
        pytest.raises(ValueError, match=r"output of '' \(Posterior\) must be a tensor.*got tuple"),
    ):
        network(torch.randn(2, 3))


# The axis of the channels


class Doubled(nn.Linear):
    """A subclass whose forward pass is that of its kind."""


class ChannelsSecond(nn.LayerNorm):
    """As `LayerNorm2d` of torchvision and others."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Stated(nn.Module):
    channel_axis = 2

    def forward(self, x):
        return x + 1


def measure(module, features, side, **options):
    """The measures of the input or output of a module, without their prefix."""
    with ConditioningProbe(module, **{side: {"": 0.0}}, **options) as probe:
        module(features)
        measures = as_numbers(probe.record())
    return {name.split("/")[-1]: value for name, value in measures.items()}


KNOWN = {
    "linear": (nn.Linear(4, 3), (6, 5, 4), -1),
    "a subclass": (Doubled(4, 3), (6, 5, 4), -1),
    "lazy": (nn.LazyLinear(3), (6, 5, 4), -1),
    "parametrized": (constrain_weight(nn.Linear(4, 3), "weight", "spectral"), (6, 5, 4), -1),
    "layer norm": (nn.LayerNorm(4), (6, 5, 4), -1),
    "RMS norm": (nn.RMSNorm(4), (2, 6, 5, 4), -1),
    "encoder layer": (nn.TransformerEncoderLayer(4, 2, 8, dropout=0), (6, 5, 4), -1),
    "LSTM": (nn.LSTM(4, 3), (6, 5, 4), -1),
    "convolution": (nn.Conv2d(4, 3, 1), (6, 4, 5, 5), 1),
    "convolution of one image": (nn.Conv2d(4, 3, 1), (4, 5, 5), 0),
    "convolution of one sequence": (nn.Conv1d(4, 3, 1), (4, 9), 0),
    "lazy convolution": (nn.LazyConv1d(3, 1), (6, 4, 5), 1),
    "transposed convolution": (nn.ConvTranspose3d(4, 3, 1), (6, 4, 2, 2, 2), 1),
    "batch norm of vectors": (nn.BatchNorm1d(4), (9, 4), 1),
    "batch norm of sequences": (nn.BatchNorm1d(4), (6, 4, 5), 1),
    "batch norm": (nn.BatchNorm2d(4), (6, 4, 3, 5), 1),
    "instance norm": (nn.InstanceNorm2d(4), (6, 4, 3, 5), 1),
    "instance norm of one image": (nn.InstanceNorm2d(4), (4, 3, 5), 0),
    "group norm": (nn.GroupNorm(2, 4), (6, 4, 3, 5), 1),
    "group norm of vectors": (nn.GroupNorm(2, 4), (9, 4), 1),
    "pooling": (nn.AdaptiveAvgPool2d(2), (6, 4, 4, 4), 1),
    "vectors into any layer": (nn.Tanh(), (9, 4), 1),
    "an attribute": (Stated(), (3, 5, 4, 2), 2),
    "skew-orthogonal convolution": (SkewOrthogonalConv2d(4, 4, 3), (2, 4, 6, 6), 1),
    "decorrelated norm": (DecorrelatedBatchNorm2d(4), (6, 4, 3, 5), 1),
    "joint norm": (JointBatchNorm2d(4), (6, 4, 3, 5), 1),
    "covariance root": (CovarianceRoot(), (6, 2, 3, 5), 1),
}


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize(("module", "shape", "axis"), KNOWN.values(), ids=KNOWN.keys())
def test_the_kind_of_layer_tells_the_axis(module, shape, axis, side):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    seen = {}
    module.register_forward_hook(
        lambda _, args, output: seen.update(inputs=args[0], outputs=output)
    )
    measures = measure(module, features, side)
    measured = seen[side][0] if isinstance(seen[side], tuple) else seen[side]
    rows = measured.detach().movedim(axis, -1)
    expected = covariance_conditioning(rows.reshape(-1, rows.shape[-1]))
    assert measures == pytest.approx(as_numbers(expected._asdict()), nan_ok=True)


@pytest.mark.parametrize("batch_first", [False, True])
def test_attention(batch_first):
    attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    with ConditioningProbe(attention, outputs={"": 0.0}) as probe:
        output, _ = attention(x, x, x)
        measured = probe.record()["conditioning//covariance/condition"]
    assert measured == covariance_conditioning(output, channel_axis=-1).condition
    with ConditioningProbe(attention, inputs={"": 0.0}) as probe:
        attention(x, x, x)
        measured = probe.record()["conditioning//covariance/condition"]
    assert measured == covariance_conditioning(x.flatten(end_dim=1)).condition


def test_embeddings():
    embedding = nn.Embedding(7, 3)
    words = torch.randint(7, (9, 5), generator=torch.Generator().manual_seed(0))
    measures = measure(embedding, words, "outputs")
    expected = covariance_conditioning(embedding(words).flatten(end_dim=1))
    assert measures == as_numbers(expected._asdict())


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.ReLU(), (6, 4, 5, 5)),
        (nn.Sequential(nn.Linear(4, 4)), (6, 5, 4)),
        (ChannelsSecond(4), (6, 4, 5, 5)),
        (nn.LayerNorm((4, 5, 5)), (6, 4, 5, 5)),
    ],
    ids=["activation", "container", "own forward", "joint norm"],
)
def test_an_ambiguous_axis_is_refused_or_named(module, shape, side):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    name = type(module).__name__
    expected = (
        rf"axis of the {side[:-1]} of '' \({name}\) is ambiguous.*pass channel_axes=\{{'': 1\}}"
    )
    with pytest.raises(ValueError, match=expected):
        measure(module, features, side)
    for axis in (1, -1):
        measured = measure(module, features, side, channel_axes={"": axis})
        rows = (features if side == "inputs" else module(features)).movedim(axis, -1)
        expected = covariance_conditioning(rows.reshape(-1, rows.shape[-1]))
        assert measured == pytest.approx(as_numbers(expected._asdict()), nan_ok=True)


# Names


@few
@given(st.text("abc.0/_", min_size=1), st.sampled_from(QUANTITIES), st.sampled_from(MEASURES))
def test_names_can_be_taken_apart(layer, quantity, measure):
    assert split_measure_name(measure_name(layer, quantity, measure)) == (layer, quantity, measure)


@pytest.mark.parametrize("name", ["loss", "loss/generator", "conditioning/x", "step", "a/b/c/d"])
def test_other_names_are_no_measures(name):
    assert split_measure_name(name) is None
