import pytest
import torch

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
        assert torch.allclose(sigmas, torch.ones(10), atol=1e-5) == (pre_svd_weight == "orthogonal")
        if pre_svd_weight != "free":
            assert sigmas[0].item() == pytest.approx(1, abs=1e-3)
    model(torch.rand(4, 1, 32, 32), torch.randn(4, 10)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_other_constraints_are_refused():
    with pytest.raises(ValueError, match="one of free, orthogonal, spectral, got 'unitary'"):
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
