import pytest
import torch
from torch.nn import functional

from disentangle.models import Encoder, Generator, SubspaceVAE
from disentangle.orthogonality import WEIGHT_CONSTRAINTS, resolve_parameters


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("subspace_count", [1, 3])
def test_shapes(image_size, image_channels, subspace_count):
    model = SubspaceVAE(
        image_size=image_size,
        image_channels=image_channels,
        subspace_count=subspace_count,
        base_channels=4,
        code_dim=5,
    )
    images = model.decode(model.sample_latents(3))
    assert images.shape == (3, image_channels, image_size, image_size)
    assert images.abs().max() <= 1
    output = model(images, torch.randn(3, 5))
    assert output.logits.shape == images.shape
    assert output.mean.shape == output.log_variance.shape == model.encode(images).shape == (3, 5)
    assert len(model.pre_svd_parameters()) == subspace_count


def test_protocols():
    model = SubspaceVAE(image_size=32)
    assert isinstance(model, Generator)
    assert isinstance(model, Encoder)
    assert [axis.direction.argmax().item() for axis in model.axes] == list(range(10))


def test_the_code_enters_through_the_subspaces_only():
    model = SubspaceVAE(image_size=32, subspace_count=2, base_channels=4)
    with torch.no_grad():
        for name in model.pre_svd_parameters():
            model.get_parameter(name).zero_()
    a, b = model.decode(torch.randn(2, 10))
    assert torch.equal(a, b)


def test_noise_is_the_only_randomness():
    model = SubspaceVAE(image_size=32, base_channels=4)
    images, noise = torch.rand(2, 1, 32, 32), torch.randn(2, 10)
    assert torch.equal(model(images, noise).logits, model(images, noise).logits)
    still = model(images, torch.zeros(2, 10))
    assert torch.allclose(2 * still.logits.sigmoid() - 1, model.decode(model.encode(images)))


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
def test_constrained_bases(pre_svd_weight):
    options = {"image_size": 32, "base_channels": 4, "subspace_count": 2, "hidden_dim": 16}
    model = SubspaceVAE(**options, pre_svd_weight=pre_svd_weight)
    names = model.pre_svd_parameters()
    assert names == ["decoder.subspaces.0.U", "decoder.subspaces.1.U"]
    bases = resolve_parameters(model, names)
    with torch.no_grad():
        for basis in bases.values():
            basis.add_(0.5 * torch.randn_like(basis))
    for layer, basis in zip(model.decoder.subspaces, bases.values(), strict=True):
        for _ in range(300):  # passes that train let SN follow the jump
            U = layer.U
        sigmas = torch.linalg.svdvals(U.detach())
        assert torch.equal(U, basis) == (pre_svd_weight == "free")
        assert torch.allclose(sigmas, torch.ones(10), atol=1e-5) == (
            pre_svd_weight.startswith("ortho")
        )
        if pre_svd_weight != "free":
            assert sigmas[0].item() == pytest.approx(1, abs=1e-3)
    model(torch.rand(4, 1, 32, 32), torch.randn(4, 10)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_other_constraints_are_refused():
    with pytest.raises(
        ValueError, match="one of free, orthogonal, orthonormal_kernel, spectral, got 'unitary'"
    ):
        SubspaceVAE(image_size=32, pre_svd_weight="unitary")


@pytest.mark.parametrize("subspace_count", [0, 5])
def test_more_subspaces_than_depths(subspace_count):
    with pytest.raises(ValueError, match=f"between 1 and 4, got {subspace_count}"):
        SubspaceVAE(image_size=32, subspace_count=subspace_count)


def test_gradients_reach_every_parameter():
    model = SubspaceVAE(image_size=32, subspace_count=3, base_channels=4)
    model(torch.rand(4, 1, 32, 32), torch.randn(4, 10)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_shapes_of_inputs_are_checked():
    model = SubspaceVAE(image_size=32)
    with pytest.raises(ValueError, match=r"latents must have the shape \(N, 10\), got \(10,\)"):
        model.decode(torch.zeros(10))
    with pytest.raises(ValueError, match=r"\(N, 1, 32, 32\), got \(2, 1, 64, 64\)"):
        model.encode(torch.zeros(2, 1, 64, 64))


@pytest.mark.parametrize(("image_size", "base_channels"), [(32, 2), (128, 3)])
@pytest.mark.parametrize("subspace_count", [1, 3])
def test_a_residual_network(image_size, base_channels, subspace_count):
    model = SubspaceVAE(
        network="residual",
        image_size=image_size,
        image_channels=3,
        base_channels=base_channels,
        subspace_count=subspace_count,
        code_dim=5,
    )
    output = model(torch.rand(3, 3, image_size, image_size), torch.randn(3, 5))
    assert output.logits.shape == (3, 3, image_size, image_size)
    assert output.mean.shape == output.log_variance.shape == (3, 5)
    widths = [base_channels * factor for factor in (1, 2, 4, 8, 16, 16)]
    inputs = [block.first.in_channels for block in model.encoder.blocks]
    assert inputs == widths[: len(inputs)]
    upwards = [step[0].first.in_channels for step in model.decoder.steps]
    assert upwards == widths[len(inputs) : 0 : -1]
    bases = [model.get_parameter(name) for name in model.pre_svd_parameters()]
    dims = [256, *(width * (4 << i) ** 2 for i, width in enumerate(upwards))]
    assert [len(basis.T) for basis in bases] == dims[:subspace_count]
    output.logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("network", ["conv", "residual"])
def test_networks_learn(network):
    model = SubspaceVAE(network=network, image_size=32, base_channels=8, subspace_count=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    images = (torch.arange(32) < torch.randint(4, 28, (16, 1, 1, 1))).float().expand(16, 1, 32, 32)
    losses = []
    for _ in range(100):
        output = model(2 * images - 1, torch.zeros(16, 10))
        loss = functional.binary_cross_entropy_with_logits(output.logits, images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.6
    assert losses[-1] < 0.2


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="network must be one of conv, residual, got 'fc'"):
        SubspaceVAE(image_size=32, network="fc")


def layer_shapes(module):
    return [tuple(p.shape) for p in module.parameters() if p.ndim >= 2]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_layers_are_those_of_locatello_et_al(channels):
    model = SubspaceVAE(image_size=64, image_channels=channels)
    convolutions = [(32, channels, 4, 4), (32, 32, 4, 4), (64, 32, 2, 2), (64, 64, 2, 2)]
    assert layer_shapes(model.encoder) == [*convolutions, (256, 1024), (10, 256), (10, 256)]
    upwards = [(64, 64, 4, 4), (64, 32, 4, 4), (32, 32, 4, 4), (32, channels, 4, 4)]
    assert layer_shapes(model.decoder) == [(10, 256), (1024, 256), *upwards]


def test_whitened_codes():
    model = SubspaceVAE(image_size=32, base_channels=4, code_dim=3, whiten_codes=True)
    images, noise = 30 * torch.randn(40, 1, 32, 32), torch.randn(40, 3)
    for _ in range(100):
        mean = model(images, noise).mean
    assert (mean.T @ mean / 40).allclose(torch.eye(3), atol=0.05)
    assert not model.encode(images[:5]).allclose(mean[:5], atol=0.01)  # of a batch of its own
    model.eval()
    assert model.encode(images[:1]).allclose(mean[:1], atol=0.1)


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
def test_the_weight_before_whitening_is_a_pre_svd_parameter(pre_svd_weight):
    options = {"image_size": 32, "base_channels": 4, "pre_svd_weight": pre_svd_weight}
    model = SubspaceVAE(**options, whiten_codes=True)
    names = model.pre_svd_parameters()
    assert names == ["decoder.subspaces.0.U", "encoder.posterior.mean.weight"]
    weight = resolve_parameters(model, names)[names[1]]
    assert weight.shape == (10, 256)
    sigmas = torch.linalg.svdvals(model.encoder.posterior.mean.weight.detach())
    orthogonal = pre_svd_weight.startswith("ortho")
    assert torch.allclose(sigmas, torch.ones(10), atol=1e-5) == orthogonal
    model(torch.rand(16, 1, 32, 32), torch.randn(16, 10)).logits.square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
