import pytest
import torch
from diffusers import AutoencoderKL

from disentangle.adapters import adapt_autoencoder
from disentangle.models import Encoder, Generator
from disentangle.traversal import traverse

SMALL = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "norm_num_groups": 2,
    "mid_block_add_attention": False,
}
SCALES = [
    {},
    {"scaling_factor": 0.5, "shift_factor": 0.2},
    {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]},
]


def tiny(**options):
    torch.manual_seed(0)
    return AutoencoderKL(**SMALL | options).eval()


@pytest.fixture
def images():
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("options", SCALES)
@torch.no_grad()
def test_codes_are_the_latents_of_a_diffusion_model_about_their_mean(images, options):
    autoencoder = tiny(**options)
    generator = adapt_autoencoder(autoencoder, images, count=3)
    assert isinstance(generator, Generator)
    assert isinstance(generator, Encoder)
    assert generator.latent_dim == 4 * 8 * 8
    codes = generator.encode(images)
    assert codes.mean(dim=0).abs().max() < 1e-5
    latents = autoencoder.encode(images).latent_dist.mode()
    expected = autoencoder.decode(latents).sample.clamp(-1, 1)
    torch.testing.assert_close(generator.decode(codes), expected, atol=1e-4, rtol=1e-4)
    shift = torch.tensor(options.get("latents_mean", [options.get("shift_factor", 0.0)]))
    std = torch.tensor(options.get("latents_std", [1.0]))
    scaled = (
        autoencoder.config.scaling_factor * (latents - shift.view(-1, 1, 1)) / std.view(-1, 1, 1)
    )
    torch.testing.assert_close(codes, (scaled - scaled.mean(dim=0)).flatten(1))


def test_the_axes_are_those_along_which_the_images_vary(images):
    autoencoder = tiny()
    generator = adapt_autoencoder(autoencoder, images, count=None)
    assert len(generator.axes) == 5  # of six images about their mean
    with torch.no_grad():
        codes = generator.encode(images)
    for axis in generator.axes:
        assert float((codes @ axis.direction).std()) == pytest.approx(axis.std, rel=1e-3)
    V = torch.stack([axis.direction for axis in generator.axes])
    torch.testing.assert_close(codes @ V.T @ V, codes, atol=1e-4, rtol=1e-3)
    frames = traverse(generator.decode, codes[:1], generator.axes[:2], values=[-2.0, 2.0])
    assert frames.shape == (2, 1, 2, 3, 16, 16)


def test_from_a_folder(images, tmp_path):
    autoencoder = tiny()
    autoencoder.save_pretrained(tmp_path / "vae")
    z = torch.randn(2, 256)
    with torch.no_grad():
        expected = adapt_autoencoder(autoencoder, images, count=2).decode(z)
        assert torch.equal(adapt_autoencoder(tmp_path / "vae", images, count=2).decode(z), expected)


def test_what_does_not_fit(images):
    for bad in (images[:1], images[0], images[:, :1]):
        with pytest.raises(ValueError, match=r"\(M, 3, H, W\) with M ≥ 2, got "):
            adapt_autoencoder(tiny(), bad)
    for bad in (images * 255, images / 0):
        with pytest.raises(ValueError, match=r"images must be finite and in \[-1, 1\], got "):
            adapt_autoencoder(tiny(), bad)
    with pytest.raises(ValueError, match="count must be between 1 and 5"):
        adapt_autoencoder(tiny(), images, count=6)
    with pytest.raises(ValueError, match="count must be between 1 and 0"):
        adapt_autoencoder(tiny(), torch.zeros(4, 3, 16, 16))
    with pytest.raises(ValueError, match="sides that the autoencoder can halve"):
        adapt_autoencoder(tiny(), torch.rand(4, 3, 17, 17), count=2)
    with pytest.raises(ValueError, match=r"expected an AutoencoderKL of diffusers .* got Linear"):
        adapt_autoencoder(torch.nn.Linear(1, 1), images)
    with pytest.raises(FileNotFoundError, match="no KL autoencoder in nowhere"):
        adapt_autoencoder("nowhere", images)
