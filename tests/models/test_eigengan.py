import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from disentangle.models import EigenGAN, EigenGANDiscriminator, Generator
from disentangle.orthogonality import WEIGHT_CONSTRAINTS, Orthonormal, resolve_parameters


@pytest.mark.parametrize("image_size", [32, 64, 128, 256])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_any_power_of_two_from_32(image_size, image_channels):
    shape = {"image_size": image_size, "image_channels": image_channels, "base_channels": 2}
    generator = EigenGAN(**shape, max_channels=8, noise_dim=5)
    images = generator(generator.sample_latents(2))
    assert images.shape == (2, image_channels, image_size, image_size)
    assert images.abs().max() <= 1
    assert EigenGANDiscriminator(**shape, max_channels=8)(images).shape == (2,)
    assert generator.block_count == math.log2(image_size) - 2


def test_a_block_is_the_formula_of_the_paper():
    """Whose convolutions are of the points of the subspace, not of its basis."""
    model = EigenGAN(image_size=32, base_channels=4, noise_dim=3).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    h, z = torch.randn(5, 16, 8, 8).double(), torch.randn(5, 6).double()
    block = model.blocks[1]
    phi = block.subspace(z).unflatten(1, (16, 8, 8))
    expected = block.feature_conv1(functional.leaky_relu(h + block.subspace_conv1(phi), 0.2))
    expected = block.feature_conv2(functional.leaky_relu(expected + block.subspace_conv2(phi), 0.2))
    assert torch.allclose(block(h, z), expected, rtol=1e-10)


@pytest.mark.parametrize("image_size", [0, -64, 16, 48, 100])
@pytest.mark.parametrize("network", [EigenGAN, EigenGANDiscriminator])
def test_other_sizes_are_refused(network, image_size):
    with pytest.raises(ValueError, match=rf"power of two from 32, got {image_size}"):
        network(image_size=image_size)


@pytest.mark.parametrize("network", [EigenGAN, EigenGANDiscriminator])
def test_channels_are_checked(network):
    with pytest.raises(ValueError, match="must be 1 or 3, got 2"):
        network(image_channels=2)


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
def test_bases_of_the_paper(pre_svd_weight):
    with torch.device("meta"):
        model = EigenGAN(image_size=256, pre_svd_weight=pre_svd_weight)
    bases = resolve_parameters(model, model.pre_svd_parameters())
    assert list(bases) == [f"blocks.{i}.subspace.U" for i in range(6)]
    widths = [basis.shape for basis in bases.values()]
    assert widths == [(6, n) for n in (8192, 32768, 65536, 131072, 262144, 524288)]


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
def test_what_a_constraint_keeps_in_training(pre_svd_weight):
    model = EigenGAN(image_size=32, base_channels=2, noise_dim=4, pre_svd_weight=pre_svd_weight)
    bases = resolve_parameters(model, model.pre_svd_parameters())
    assert all(any(basis is p for p in model.parameters()) for basis in bases.values())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = [basis.detach().clone() for basis in bases.values()]
    for _ in range(5):
        optimizer.zero_grad()
        model(model.sample_latents(4)).square().mean().backward()
        optimizer.step()
    for basis, block, start in zip(bases.values(), model.blocks, before, strict=True):
        assert not torch.equal(basis, start)
        sigmas = torch.linalg.svdvals(block.subspace.U.detach())
        if pre_svd_weight.startswith("ortho"):
            assert torch.allclose(sigmas, torch.ones(6), atol=1e-5)
        elif pre_svd_weight == "spectral":
            assert sigmas[0].item() == pytest.approx(1, abs=0.02)
        else:
            assert torch.equal(block.subspace.U, basis)
            assert (sigmas - 1).abs().max() > 1e-3


def test_a_basis_is_computed_once_per_pass(monkeypatch):
    model = EigenGAN(image_size=32, base_channels=2, noise_dim=4, pre_svd_weight="orthogonal")
    calls, compute = [], Orthonormal.forward
    monkeypatch.setattr(Orthonormal, "forward", lambda *a: calls.append(a) or compute(*a))
    model(model.sample_latents(4)).sum().backward()
    assert len(calls) == len(model.blocks)


def test_other_constraints_are_refused():
    with pytest.raises(
        ValueError, match="one of free, orthogonal, orthonormal_kernel, spectral, got 'unitary'"
    ):
        EigenGAN(image_size=32, pre_svd_weight="unitary")


def test_bases_start_orthonormal_with_descending_importances():
    model = EigenGAN(image_size=32, base_channels=4)
    for block in model.blocks:
        assert torch.allclose(block.subspace.U @ block.subspace.U.T, torch.eye(6), atol=1e-5)
        assert block.subspace.L.tolist() == [18, 15, 12, 9, 6, 3]
        assert not block.subspace.mu.any()


def test_split_names_the_parts_of_the_flat_latent():
    model = EigenGAN(image_size=64, basis_dim=3, noise_dim=5, base_channels=2)
    z = torch.arange(model.latent_dim).repeat(2, 1)
    noise, coordinates = model.split(z)
    assert noise[0].tolist() == [0, 1, 2, 3, 4]
    assert coordinates.shape == (2, 4, 3)
    assert coordinates[0, 1].tolist() == [8, 9, 10]


def test_axes_move_the_coordinate_that_they_name():
    model = EigenGAN(image_size=32, basis_dim=2, noise_dim=5, base_channels=2)
    assert isinstance(model, Generator)
    assert len({(axis.group, axis.name) for axis in model.axes}) == 6
    z = torch.zeros(1, model.latent_dim)
    for number, axis in enumerate(model.axes):
        _, coordinates = model.split(z + axis.direction)
        block, dimension = divmod(number, 2)
        assert (axis.group, axis.name) == (f"block {block}", f"dimension {dimension}")
        assert coordinates.nonzero().tolist() == [[0, block, dimension]]


def test_the_last_layer_is_the_convolution_of_the_official_code():
    last = EigenGAN(image_size=32, base_channels=16).to_image
    assert type(last) is nn.Conv2d
    assert (last.weight.shape, last.padding) == ((3, 16, 7, 7), (3, 3))
    assert last.weight.std().item() == pytest.approx((3 * 16 * 7 * 7) ** -0.5, rel=0.05)  # 0.0206
    assert last.weight.abs().max() <= (16 * 7 * 7) ** -0.5


def test_every_parameter_gets_a_gradient():
    model = EigenGAN(image_size=32, base_channels=2, noise_dim=4)
    model(model.sample_latents(4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_shapes_of_inputs_are_checked():
    with pytest.raises(ValueError, match=r"latents must have the shape \(N, 23\), got \(2, 5\)"):
        EigenGAN(image_size=32, noise_dim=5).decode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"\(N, 3, 32, 32\), got \(2, 1, 32, 32\)"):
        EigenGANDiscriminator(image_size=32)(torch.zeros(2, 1, 32, 32))
