import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from disentangle.adapters import adapt, principal_components, sample_images
from disentangle.metrics import (
    activeness,
    extract_features,
    frechet_inception_distance,
    perceptual_path_length,
    random_features,
    squared_feature_distance,
    variation_predictability,
)
from disentangle.models import Axis, Encoder, Generator, SubspaceVAE, sefa_axes
from disentangle.models.evaluation_mode import device_of


def tiny_network():
    """Colour images of 16 px of 4 latents as an image of one pixel."""
    return nn.Sequential(nn.ConvTranspose2d(4, 3, 16), nn.Tanh())


adapt_tiny = partial(adapt, latent_dim=4, latent_shape=(4, 1, 1))


def test_a_module_becomes_a_generator():
    network = tiny_network().train()
    generator = adapt_tiny(network)
    assert isinstance(generator, Generator)
    assert not isinstance(generator, Encoder)
    assert not network.training
    assert generator.image_shape == (3, 16, 16)
    z = generator.sample_latents(3, torch.Generator().manual_seed(0))
    assert torch.equal(generator(z), network(z[:, :, None, None]))
    assert [axis.name for axis in generator.axes] == [f"dimension {j}" for j in range(4)]
    assert torch.equal(torch.stack([axis.direction for axis in generator.axes]), torch.eye(4))
    assert set(generator.state_dict()) == {"network.0.weight", "network.0.bias"}
    assert generator.network is network


def test_nothing_global_is_drawn():
    torch.manual_seed(3)
    expected = torch.rand(2)
    network = tiny_network()
    torch.manual_seed(3)
    adapt_tiny(network, sample_latents=lambda n, g: torch.randn(n, 4, generator=g))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("image_range", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
def test_image_ranges(image_range):
    low, high = image_range

    def decode(z):
        return low + (high - low) * z[:, :1, None, None].sigmoid().expand(-1, 1, 8, 8)

    generator = adapt(decode, latent_dim=2, image_range=image_range)
    z = torch.tensor([[-40.0, 0.0], [0.0, 0.0], [40.0, 0.0]])
    expected = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(generator.decode(z)[:, 0, 0, 0], expected)


def test_values_beyond_the_range_are_cut_off_if_asked():
    def decode(z):
        return 9 * z[:, :1, None, None].expand(-1, 1, 8, 8)

    with pytest.raises(ValueError, match=r"within image_range \(-1\.0, 1\.0\), got -.* to .*clamp"):
        adapt(decode, latent_dim=2)
    images = adapt(decode, latent_dim=2, clamp=True).decode(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
    assert images[:, 0, 0, 0].tolist() == [-1, 1]


def unit_images(z):
    """Images `(N, 1, 8, 8)` in `[0, 1]`."""
    return (z[:, :1, None, None] + torch.linspace(-2, 2, 64).view(8, 8)).sigmoid()


@pytest.mark.parametrize(
    ("scale", "shift", "image_range"),
    [
        (1, 0, (0, 255)),
        (2, -1, (0, 255)),
        (1, 0, (0, 65_535)),
        (255, 0, (0, 65_535)),
        (255, 0, (0, 1)),
        (255, 0, (-1, 1)),
        (2, -1, (0, 1)),
        (1, -1, (0, 1)),
    ],
)
def test_a_range_that_is_not_that_of_the_values_is_refused(scale, shift, image_range):
    def decode(z):
        return scale * unit_images(z) + shift

    with pytest.raises(ValueError, match=r"decode must give values (within|that fill) image_range"):
        adapt(decode, latent_dim=2, image_range=image_range)
    right = adapt(decode, latent_dim=2, image_range=(shift, scale + shift))
    z = torch.zeros(1, 2)
    torch.testing.assert_close(right.decode(z), 2 * unit_images(z) - 1, rtol=0, atol=1e-5)


@pytest.mark.parametrize("image_range", [(0, 1), (-1, 1)])
def test_clamping_does_not_hide_a_wrong_range(image_range):
    with pytest.raises(ValueError, match=r"that fill image_range .*: choose another image_range"):
        adapt(lambda z: 255 * unit_images(z), latent_dim=2, image_range=image_range, clamp=True)


@pytest.mark.parametrize(
    ("returned", "output"),
    [
        (lambda x: (x, None), 0),
        (lambda x: [None, x], -1),
        (lambda x: {"images": x}, "images"),
        (lambda x: SimpleNamespace(sample=x), "sample"),
    ],
)
def test_images_among_other_outputs(returned, output):
    network = tiny_network()
    generator = adapt_tiny(lambda z: returned(network(z)), network=network, output=output)
    z = torch.randn(2, 4)
    assert torch.equal(generator.decode(z), network(z[:, :, None, None]))
    with pytest.raises(ValueError, match="say by output which part"):
        adapt_tiny(lambda z: returned(network(z)))
    for wrong in (7, "nothing"):
        with pytest.raises(ValueError, match=f"which has no output {wrong!r}"):
            adapt_tiny(lambda z: returned(network(z)), output=wrong)


def test_a_method_and_further_arguments():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 64)

        def draw(self, z, shade=0.5):
            return (shade * self.layer(z)).tanh().view(-1, 1, 8, 8)

    network = Conditional()
    assert adapt(network.draw, latent_dim=4).network is network
    dark = adapt(lambda z: network.draw(z, shade=0.0), latent_dim=4, network=network)
    assert not dark.decode(torch.randn(2, 4)).any()
    assert len(sefa_axes(dark, "network.layer")) == 4


def test_a_uniform_prior():
    seen = []

    def decode(u):
        seen.append(u)
        return u[:, :, None, None].expand(-1, -1, 4, 4)

    generator = adapt(decode, latent_dim=3, uniform=(0.0, 1.0))
    z = generator.sample_latents(20_000, torch.Generator().manual_seed(0))
    generator.decode(z)
    u = seen[-1]
    assert all(batch.min() >= 0 and batch.max() <= 1 for batch in seen)
    np.testing.assert_allclose(u.mean(dim=0), 0.5, atol=0.01)
    np.testing.assert_allclose(u.var(dim=0), 1 / 12, atol=0.002)
    moved = seen[-1][:1].clone()
    generator.decode(z[:1] + generator.axes[1].direction)
    assert (seen[-1] != moved)[0].tolist() == [False, True, False]


def test_a_prior_of_ones_own():
    spread = torch.tensor([0.5, 2.0])
    generator = adapt(
        lambda z: z[:, :1, None, None].tanh().expand(-1, 1, 4, 4),
        latent_dim=2,
        sample_latents=lambda n, g: spread * torch.randn(n, 2, generator=g),
    )
    assert [axis.std for axis in generator.axes] == pytest.approx([0.5, 2.0], rel=0.05)
    with pytest.raises(ValueError, match=r"must give latents of shape \(2, 2\), got \(2, 3\)"):
        adapt(tiny_network(), latent_dim=2, sample_latents=lambda n, g: torch.zeros(n, 3))


def test_an_encoder():
    generator = adapt(
        lambda z: z.view(-1, 1, 2, 2), encode=lambda x: x.flatten(1), latent_dim=4, clamp=True
    )
    assert isinstance(generator, Encoder)
    images = torch.rand(3, 1, 2, 2)
    assert torch.equal(generator.decode(generator.encode(images)), images)
    with pytest.raises(ValueError, match=r"codes of shape \(3, 4\), got \(3, 12\)"):
        generator.encode(torch.rand(3, 3, 2, 2))


def test_functions_may_change_what_they_are_given():
    generator = adapt(
        lambda z: z.mul_(0.1).view(-1, 1, 2, 2),
        encode=lambda x: x.mul_(10).flatten(1),
        latent_dim=4,
    )
    z = torch.randn(3, 4)
    given, images = z.clone(), generator.decode(z)
    kept = images.clone()
    torch.testing.assert_close(generator.encode(images), given)
    assert torch.equal(z, given)
    assert torch.equal(images, kept)


def test_other_axes():
    generator = adapt_tiny(tiny_network())
    turned = generator.with_axes(sefa_axes(generator, "network.0"))
    assert len(generator.axes) == len(turned.axes) == 4
    assert turned.axes[0].group == "SeFa of network.0"
    assert turned.network is generator.network
    z = torch.randn(2, 4)
    assert torch.equal(turned.decode(z), generator.decode(z))
    assert generator.axes[0].group == "latent"
    assert generator.with_axes(torch.eye(4)[:2]).axes[1].name == "direction 1"
    for axes, message in [
        ([], "at least one axis, got none"),
        (torch.ones(1, 4), "length 2"),
        ([Axis("a", "b", torch.ones(1))], r"shape \(4,\) and length 1, got that of 'a'"),
        ([Axis("a", "b", torch.eye(4)[0], math.nan)], "std of 'a' must be finite, got nan"),
        ([torch.eye(4)[0]], r"Axis objects or a tensor .* got a Tensor among them"),
    ]:
        with pytest.raises(ValueError, match=message):
            generator.with_axes(axes)


@pytest.mark.parametrize(
    ("decode", "options", "message"),
    [
        ("G", {}, "must be a module or a function, got str"),
        (tiny_network(), {"latent_dim": 0}, "latent_dim must be a whole number from 1, got 0"),
        (tiny_network(), {"latent_dim": 4.0}, "latent_dim must be a whole number from 1, got 4.0"),
        (tiny_network(), {"latent_shape": (5, 1, 1)}, r"hold latent_dim = 4 numbers, got \(5"),
        (tiny_network(), {"latent_shape": None}, r"latents of shape \(2, 4\) on cpu, but raised"),
        (tiny_network(), {"uniform": (1, 0)}, "uniform must go from low to high"),
        (tiny_network(), {"uniform": (-math.inf, 0)}, "uniform must go .* both finite"),
        (tiny_network(), {"image_range": (1, 1)}, "image_range must go from low to high"),
        (tiny_network(), {"image_range": (0, math.inf)}, "image_range must go .* both finite"),
        (tiny_network(), {"image_range": (0, 1, 2)}, r"image_range must go .* got \(0, 1, 2\)"),
        (tiny_network(), {"latent_shape": (-4, -1, 1)}, r"4 numbers, got \(-4, -1, 1\)"),
        (tiny_network(), {"sample_latents": lambda n: torch.zeros(n, 4)}, "a torch generator, but"),
        (
            tiny_network(),
            {"uniform": (0, 1), "sample_latents": torch.randn},
            "uniform or sample_latents, got two priors",
        ),
        (
            tiny_network(),
            {"sample_latents": lambda n, g: torch.ones(n, 4, dtype=torch.int64)},
            r"floating-point latents, got torch\.int64",
        ),
        (lambda z: torch.zeros(2, 3, 0, 8), {}, r"images of shape .* got \(2, 3, 0, 8\)"),
        (lambda z: z / 0, {}, r"channels, got \(2, 4, 1, 1\)"),
        (lambda z: z[:, :1] * torch.nan, {}, "finite images, got NaN"),
        (lambda z: torch.zeros(1, 3, 8, 8), {}, r"shape \(2, C, H, W\) .* got \(1, 3, 8, 8\)"),
        (lambda z: torch.zeros(2, 8, 8, 3), {}, r"images\.movedim\(3, 1\)"),
        (
            lambda z: torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
            {},
            r"floating-point images, got torch\.uint8",
        ),
        (lambda z: torch.rand(len(z), 1, 8, 8), {}, "fix its noise"),
        (
            nn.Sequential(nn.Flatten(), nn.Softmax(0), nn.Unflatten(1, (1, 2, 2))),
            {},
            "in the batch",
        ),
        (lambda z: np.zeros((2, 3, 8, 8)), {}, "got a ndarray"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(decode, options, message):
    with pytest.raises(ValueError, match=message):
        adapt(decode, **{"latent_dim": 4, "latent_shape": (4, 1, 1)} | options)


def test_half_precision_comes_out_as_it_went_in():
    images = adapt(lambda z: z[:, :1, None, None].tanh().bfloat16(), latent_dim=2)
    assert images.decode(torch.randn(2, 2)).dtype == torch.float32


def test_metrics_take_it():
    generator = adapt_tiny(tiny_network())
    z = generator.sample_latents(20, torch.Generator().manual_seed(0))
    directions = torch.stack([axis.direction for axis in generator.axes])
    assert (activeness(generator.decode, z, directions).per_axis > 0).all()
    few = {"pairs": 60, "test_ratio": 0.5, "epochs": 2, "width": 4, "seeds": [0]}
    found = variation_predictability(generator.decode, generator.sample_latents, **few)
    assert found.confusion.shape == (4, 4)
    network = random_features()
    length = perceptual_path_length(
        generator.decode, generator.sample_latents, squared_feature_distance(network), samples=8
    )
    assert length.score > 0
    features = [extract_features(network, sample_images(generator, 100, seed=s)) for s in (0, 1)]
    assert frechet_inception_distance(*features).score < 5
    assert frechet_inception_distance(features[0], features[0]).score < 1e-6


def test_samples_do_not_depend_on_the_batch_size():
    model = SubspaceVAE(image_size=32, base_channels=4).eval()
    whole = torch.cat(list(sample_images(model, 5)))
    parts = torch.cat(list(sample_images(model, 5, batch_size=2)))
    torch.testing.assert_close(parts, whole)
    assert not whole.requires_grad
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(sample_images(model, 5, batch_size=0))


def test_devices():
    assert device_of(SimpleNamespace(device="cpu")) == torch.device("cpu")
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(nn.Tanh()) == device_of(len) == torch.device("cpu")
    assert adapt_tiny(tiny_network()).to("meta").device == torch.device("meta")


def test_components_of_few_points_in_many_dimensions_and_the_reverse():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 40, generator=generator)).Q
    stds = torch.tensor([5.0, 3.0, 1.0])
    for points in (12, 400):
        X = (torch.randn(points, 3, generator=generator) * stds) @ basis[:3] + 7
        axes = principal_components(X)
        assert len(axes) == 3
        directions = torch.stack([axis.direction for axis in axes])
        torch.testing.assert_close(directions @ directions.T, torch.eye(3), atol=1e-5, rtol=0)
        _, S, V = torch.linalg.svd((X - X.mean(dim=0)).double(), full_matrices=False)
        expected = (S[:3] / (points - 1) ** 0.5).tolist()
        assert [axis.std for axis in axes] == pytest.approx(expected, rel=1e-4)
        agreement = (directions.double() * V[:3]).sum(dim=1).abs()
        torch.testing.assert_close(agreement, torch.ones(3).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("points", "count", "message"),
    [
        (torch.zeros(1, 3), None, r"with M ≥ 2, got the shape \(1, 3\)"),
        (torch.full((3, 3), torch.nan), None, "expected finite points"),
        (torch.ones(3, 3), None, "count must be between 1 and 0"),
        (torch.eye(3), 3, "between 1 and 2, the axes along which these 3 points vary, got 3"),
        (torch.eye(3), 0, "got 0"),
    ],
)
def test_bad_points(points, count, message):
    with pytest.raises(ValueError, match=message):
        principal_components(points, count=count)
