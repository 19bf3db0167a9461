import pytest
import torch
from torch import nn
from torch.nn import functional

from disentangle.losses.adversarial import gradient_penalty
from disentangle.models import Generator, SimpleGAN, SimpleGANDiscriminator
from disentangle.orthogonality import WEIGHT_CONSTRAINTS, as_matrix, resolve_parameters


def small(**options):
    return SimpleGAN(**{"image_size": 64, "latent_dim": 5, "base_channels": 2} | options)


def shapes(model, kind):
    return [tuple(m.weight.shape[:2]) for m in model.modules() if isinstance(m, kind)]


@pytest.mark.parametrize("image_size", [64, 128])
@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("latent_dim", [1, 6, 300])
def test_images_and_logits(image_size, image_channels, latent_dim):
    shape = {"image_size": image_size, "image_channels": image_channels, "base_channels": 1}
    generator = SimpleGAN(**shape, latent_dim=latent_dim)
    images = generator(generator.sample_latents(2))
    assert images.shape == (2, image_channels, image_size, image_size)
    assert images.abs().max() <= 1
    assert SimpleGANDiscriminator(**shape)(images).shape == (2,)


def test_layers_of_the_paper_at_64_pixels():
    with torch.device("meta"):
        generator = SimpleGAN(image_size=64, latent_dim=6)
        discriminator = SimpleGANDiscriminator(image_size=64)
    widths = [(6, 512), (512, 256), (256, 128), (128, 64), (64, 64)]
    assert shapes(generator, nn.ConvTranspose2d) == widths
    widths = [(64, 3), (128, 64), (256, 128), (512, 256)]
    assert shapes(discriminator, nn.Conv2d) == widths
    assert shapes(discriminator, nn.Linear) == [(512, 512 * 16), (1, 512)]


def test_layers_of_the_paper_at_128_pixels():
    with torch.device("meta"):
        generator, discriminator = SimpleGAN(image_size=128), SimpleGANDiscriminator(image_size=128)
    widths = [(30, 1024), (1024, 1024), (1024, 512), (512, 256), (256, 128), (128, 64)]
    assert shapes(generator, nn.ConvTranspose2d) == widths
    assert shapes(generator, nn.Conv2d) == [(3, 64)]
    widths = [(64, 3), (128, 64), (256, 128), (512, 256), (1024, 512)]
    assert shapes(discriminator, nn.Conv2d) == widths
    assert shapes(discriminator, nn.Linear) == [(1024, 1024 * 16), (1, 1024)]


def normalise(h, weight, bias):
    variance, mean = torch.var_mean(h, (2, 3), correction=0, keepdim=True)
    h = (h - mean) / (variance + 1e-6).sqrt()
    return h * weight[:, None, None] + bias[:, None, None]


@torch.no_grad()
def test_the_generator_is_what_the_method_says():
    model = small()
    for parameter in model.parameters():
        parameter.normal_()
    weights = iter(model.state_dict().values())
    z = model.sample_latents(3)
    weight, bias = next(weights), next(weights)
    h = (z @ weight.flatten(1)).view(3, 16, 4, 4) + bias[:, None, None]
    *weights, weight, bias = weights
    for convolution, scale, shift in zip(weights[:4], weights[4::2], weights[5::2], strict=True):
        h = normalise(functional.conv_transpose2d(h, convolution, None, 2, 1), scale, shift)
        h = torch.where(h > 0, h, 0.2 * h)
    expected = functional.conv2d(h, weight, bias, padding=1).tanh()
    torch.testing.assert_close(model.decode(z), expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_discriminator_is_what_the_method_says():
    model = SimpleGANDiscriminator(image_size=64, base_channels=2)
    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    weight, bias, *weights = model.state_dict().values()
    images = torch.randn(3, 3, 64, 64)
    h = functional.conv2d(images, weight, bias, 2, 1).relu()
    *weights, hidden, hidden_bias, output, output_bias = weights
    for convolution, scale, shift in zip(weights[:3], weights[3::2], weights[4::2], strict=True):
        h = normalise(functional.conv2d(h, convolution, None, 2, 1), scale, shift).relu()
    h = (h.flatten(1) @ hidden.T + hidden_bias).relu()
    expected = (h @ output.T + output_bias)[:, 0]
    torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)


def test_an_orthogonal_first_layer_is_an_orthogonal_map():
    model = small(pre_svd_weight="orthogonal")
    features = model.latent_projection
    a, b = torch.randn(2, 7, 5, 1, 1)
    moved = (features(a) - features(b)).flatten(1).norm(dim=1)
    torch.testing.assert_close(moved, (a - b).flatten(1).norm(dim=1))
    free = small().latent_projection
    assert ((free(a) - free(b)).flatten(1).norm(dim=1) / moved).max() < 0.9


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
@pytest.mark.parametrize("latent_dim", [5, 200])  # to 128 features: a wide and a tall matrix
def test_what_a_constraint_keeps_in_training(pre_svd_weight, latent_dim):
    model = small(latent_dim=latent_dim, base_channels=1, pre_svd_weight=pre_svd_weight)
    (free,) = resolve_parameters(model, model.pre_svd_parameters()).values()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = free.detach().clone()
    for _ in range(5):
        optimizer.zero_grad()
        model(model.sample_latents(4)).square().mean().backward()
        optimizer.step()
    assert not torch.equal(free, before)
    sigmas = torch.linalg.svdvals(as_matrix(model.latent_projection.weight.detach()))
    assert len(sigmas) == min(latent_dim, 128)
    if pre_svd_weight.startswith("ortho"):
        assert torch.allclose(sigmas, torch.ones_like(sigmas), atol=1e-5)
    elif pre_svd_weight == "spectral":
        assert sigmas[0].item() == pytest.approx(1, abs=0.02)
    else:
        assert model.latent_projection.weight is free


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
def test_saved_and_read_again(pre_svd_weight, tmp_path):
    model = small(pre_svd_weight=pre_svd_weight).eval()
    model.save_pretrained(tmp_path)
    loaded = SimpleGAN.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    z = model.sample_latents(2)
    assert torch.equal(loaded.decode(z), model.decode(z))


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
def test_a_constraint_is_never_put_on_fresh_memory(pre_svd_weight, monkeypatch):
    """`from_pretrained` turns `nn.init` off: what is in memory may be anything."""

    def leave(tensor, *_, **__):
        return tensor.data.fill_(torch.nan)

    monkeypatch.setattr(nn.init, "kaiming_uniform_", leave)
    model = small(pre_svd_weight=pre_svd_weight)
    assert model.convolutions[0].weight.isnan().all()
    assert model.latent_projection.weight.isfinite().all()


def test_the_first_layer_starts_as_torch_draws_it():
    weight = SimpleGAN(image_size=64, base_channels=4).latent_projection.weight
    reference = nn.ConvTranspose2d(30, 32, 4).weight
    assert weight.std().item() == pytest.approx(reference.std().item(), rel=0.02)
    assert weight.abs().max().item() == pytest.approx(reference.abs().max().item(), rel=0.01)


def test_the_pre_svd_parameter_is_the_first_layer():
    model = small(latent_dim=6)
    (weight,) = resolve_parameters(model, model.pre_svd_parameters()).values()
    assert weight.shape == (6, 16, 4, 4)
    assert weight is next(m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)).weight


def test_axes_are_the_coordinates():
    model = small()
    assert isinstance(model, Generator)
    assert torch.equal(torch.stack([axis.direction for axis in model.axes]), torch.eye(5))
    assert [axis.name for axis in model.axes] == [f"dimension {j}" for j in range(5)]


def test_every_parameter_gets_a_gradient():
    generator = small()
    discriminator = SimpleGANDiscriminator(image_size=64, base_channels=2)
    discriminator(generator(generator.sample_latents(4))).sum().backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad.abs().max() > 1e-6, name


def test_a_gradient_penalty_trains_the_discriminator():
    discriminator = SimpleGANDiscriminator(image_size=64, image_channels=1, base_channels=2)
    images = torch.randn(4, 1, 64, 64)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    penalties = []
    for _ in range(30):
        optimizer.zero_grad()
        leaf = images.clone().requires_grad_()
        penalty = gradient_penalty(discriminator(leaf), leaf)
        penalty.backward()
        optimizer.step()
        penalties.append(penalty.item())
    assert penalties[0] > 0.5
    assert penalties[-1] < 0.1 * penalties[0]


@pytest.mark.parametrize("network", [SimpleGAN, SimpleGANDiscriminator])
def test_bad_arguments(network):
    for image_size in (0, 32, 96, 256):
        with pytest.raises(ValueError, match=f"image_size must be 64 or 128, got {image_size}"):
            network(image_size=image_size)
    with pytest.raises(ValueError, match="image_channels must be 1 or 3, got 2"):
        network(image_channels=2)
    with pytest.raises(ValueError, match="base_channels must be at least 1, got 0"):
        network(base_channels=0)


def test_bad_arguments_of_the_generator():
    with pytest.raises(ValueError, match="latent_dim must be at least 1, got 0"):
        small(latent_dim=0)
    with pytest.raises(
        ValueError, match="one of free, orthogonal, orthonormal_kernel, spectral, got 'unitary'"
    ):
        small(pre_svd_weight="unitary")


def test_shapes_of_inputs_are_checked():
    with pytest.raises(ValueError, match=r"latents must have the shape \(N, 5\), got \(2, 6\)"):
        small().decode(torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"\(N, 3, 64, 64\), got \(2, 1, 64, 64\)"):
        SimpleGANDiscriminator(image_size=64, base_channels=1)(torch.zeros(2, 1, 64, 64))
