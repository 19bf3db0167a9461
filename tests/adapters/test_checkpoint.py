"""Foreign checkpoints, made by small networks in the foreign layouts that are written here."""

import argparse
import pickle
import warnings
from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from disentangle.adapters import load_eigengan_port, load_orojar_gan
from disentangle.models import load_model


class PortBlock(nn.Module):
    """In its layout, a convolution stands beside its activation in a sequence."""

    def __init__(self, size, narrow, wide, q):
        super().__init__()
        self.shape = (narrow, size, size)
        self.projection = nn.ParameterDict(
            {
                "U": torch.randn(q, narrow * size * size) / 8,
                "L": torch.arange(3.0 * q, 0, -3),
                "mu": torch.randn(narrow * size * size) / 8,
            }
        )
        up = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
        self.subspace_conv1 = nn.Sequential(nn.ConvTranspose2d(narrow, narrow, 1))
        self.subspace_conv2 = nn.Sequential(nn.ConvTranspose2d(narrow, wide, **up))
        self.feature_conv1 = nn.Sequential(
            nn.LeakyReLU(0.2), nn.ConvTranspose2d(narrow, wide, **up)
        )
        self.feature_conv2 = nn.Sequential(
            nn.LeakyReLU(0.2), nn.ConvTranspose2d(wide, wide, 3, padding=1)
        )

    def forward(self, h, z):
        p = self.projection
        phi = ((z * p["L"]) @ p["U"] + p["mu"]).reshape(-1, *self.shape)
        h = self.feature_conv1(h + self.subspace_conv1(phi))
        return self.feature_conv2(h + self.subspace_conv2(phi))


class PortGenerator(nn.Module):
    def __init__(self, size=32, q=3, noise=5, base=2, most=512, channels=3):
        super().__init__()
        doublings = int(np.log2(size)) - 2
        widths = [min(most, base * 2 ** (doublings - i)) for i in range(doublings + 1)]
        self.fc = nn.Linear(noise, 16 * widths[0])
        self.blocks = nn.ModuleList(
            PortBlock(4 * 2**i, widths[i], widths[i + 1], q) for i in range(doublings)
        )
        layers = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(base, channels, 7, padding=3))
        self.to_rgb = nn.Sequential(layers, nn.Tanh())

    def forward(self, noise, zs):
        h = self.fc(noise).view(len(noise), -1, 4, 4)
        for i, block in enumerate(self.blocks):
            h = block(h, zs[:, i])
        return self.to_rgb(h)


class NamedBlock(nn.Module):
    """In OroJaR's layout every block holds a sequence of named layers."""

    def __init__(self, convolution, norm, activation):
        super().__init__()
        layers = [("conv", convolution)]
        layers += [] if norm is None else [("instancenorm", norm)]
        self.layers = nn.Sequential(OrderedDict([*layers, ("active", activation)]))


class OroJaRGenerator(nn.Module):
    def __init__(self, nz=5, channels=1, widths=(16, 8, 4, 2, 2)):
        super().__init__()
        blocks = [NamedBlock(nn.ConvTranspose2d(nz, widths[0], 4), None, nn.Identity())]
        for a, b in pairwise(widths):
            convolution = nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)
            norm = nn.InstanceNorm2d(b, eps=1e-6, affine=True)
            nn.init.normal_(norm.weight, 1, 0.3)
            nn.init.normal_(norm.bias, 0, 0.3)
            blocks.append(NamedBlock(convolution, norm, nn.LeakyReLU(0.2)))
        blocks.append(NamedBlock(nn.Conv2d(widths[-1], channels, 3, padding=1), None, nn.Tanh()))
        self.layers = nn.ModuleList(blocks)

    def forward(self, z):
        h = z[:, :, None, None]
        for block in self.layers:
            h = block.layers(h)
        return h


LOADERS = {load_eigengan_port: PortGenerator, load_orojar_gan: OroJaRGenerator}
each_layout = pytest.mark.parametrize("load", LOADERS, ids=lambda load: load.__name__)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "checkpoint.pt"


@pytest.mark.parametrize(
    "options", [{}, {"size": 64, "q": 6, "channels": 1}, {"most": 4}, {"base": 3, "noise": 9}]
)
@torch.no_grad()
def test_eigengan_makes_the_same_images(file, options, tmp_path):
    foreign = PortGenerator(**options)
    torch.save(foreign.state_dict(), file)
    model = load_eigengan_port(file)
    z = model.sample_latents(3)
    images = model.decode(z)
    torch.testing.assert_close(images, foreign(*model.split(z)), atol=1e-5, rtol=0)
    assert images.std() > 0.05
    assert not model.training
    assert all(p.requires_grad and p.is_contiguous() for p in model.parameters())
    model.save_pretrained(tmp_path / "ours")
    assert torch.equal(load_model(tmp_path / "ours").decode(z), images)


@pytest.mark.parametrize(
    "options",
    [{}, {"nz": 3, "channels": 3}, {"widths": (32, 32, 16, 8, 4, 2)}, {"widths": (8, 4, 2, 1, 1)}],
)
@torch.no_grad()
def test_orojar_makes_the_same_images(file, options):
    foreign = OroJaRGenerator(**options)
    torch.save(foreign.state_dict(), file)
    model = load_orojar_gan(file)
    z = model.sample_latents(3)
    images = model.decode(z)
    torch.testing.assert_close(images, foreign(z), atol=1e-5, rtol=0)
    assert images.std() > 0.05


@torch.no_grad()
def test_what_the_port_saves(file):
    """Two generators, optimizers, options of the command line and a score of NumPy."""
    average, last, other = PortGenerator(), PortGenerator(), nn.Linear(2, 2)
    content = {
        "step": 7,
        "args": argparse.Namespace(size=32, path="faces", lr=1e-4),
        "g": last.state_dict(),
        "d": other.state_dict(),
        "g_ema": average.state_dict(),
        "g_optim": torch.optim.Adam(last.parameters()).state_dict(),
        "fid": np.float64(12.5),
    }
    torch.save(content, file)
    for part, foreign in ((None, average), ("g_ema", average), ("g", last)):
        model = load_eigengan_port(file, part=part)
        z = model.sample_latents(2)
        torch.testing.assert_close(model.decode(z), foreign(*model.split(z)), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"it has no fc\.weight; it has weight, bias"):
        load_eigengan_port(file, part="d")
    with pytest.raises(ValueError, match=r"it holds 'g', 'd', 'g_ema': there is no 'G'"):
        load_eigengan_port(file, part="G")
    with pytest.raises(ValueError, match="'g', 'd', 'g_ema': say by part which one"):
        load_orojar_gan(file)


@each_layout
@torch.no_grad()
def test_other_containers(load, tmp_path):
    state = LOADERS[load]().state_dict()
    wrapped = {f"module.{name}": x for name, x in state.items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(wrapped, tmp_path / "b.pth")
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "c.pth")
    torch.save(state, tmp_path / "d.pth", _use_new_zipfile_serialization=False)
    torch.save({k: x.half() for k, x in state.items()}, tmp_path / "e.pth")
    models = [load(file) for file in sorted(tmp_path.iterdir())]
    z = models[0].sample_latents(2)
    images = [model.decode(z) for model in models]
    assert all(torch.equal(images[0], other) for other in images[1:-1])
    torch.testing.assert_close(images[-1], images[0], atol=0.02, rtol=0)
    assert images[-1].dtype == torch.float32


@each_layout
def test_every_tensor_is_accounted_for(load, file):
    state = LOADERS[load]().state_dict()
    for name, x in state.items():
        torch.save({k: v for k, v in state.items() if k != name}, file)
        with pytest.raises(ValueError, match=f"it has no {name}"):
            load(file)
        cut = x[:-1] if name == "fc.weight" else x[..., :-1]  # its columns are a size of its own
        torch.save(state | {name: cut}, file)
        with pytest.raises(ValueError, match=r"must have the shape|image_channels must be"):
            load(file)
        torch.save(state | {name: torch.full_like(x, torch.nan)}, file)
        with pytest.raises(ValueError, match=f"{name} must hold finite"):
            load(file)
    torch.save(state | {"extra": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=f"{file}: not a whole generator .*it has extra too"):
        load(file)


def test_sizes_are_not_believed_before_the_weights_are_seen(file):
    """Twelve blocks would be images of 16384 pixels and gigabytes of weights."""
    state = PortGenerator().state_dict()
    for i in range(12):
        state[f"blocks.{i}.projection.U"] = torch.zeros(3, 1)
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"it has no blocks\.3\.projection\.L"):
        load_eigengan_port(file)
    state |= {f"blocks.{i}.x": torch.zeros(1) for i in range(70)}
    torch.save(state, file)
    with pytest.raises(ValueError, match=f"{file}: "):
        load_eigengan_port(file)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("layers.0.layers.instancenorm.weight", "the first layer is normalised"),
        ("layers.1.layers.batchnorm.weight", "batch normalisation"),
        ("layers.0.layers.conv.weight_orig", "spectral normalisation"),
        ("layers.1.layers.instancenorm.running_mean", "running statistics"),
    ],
)
def test_what_ours_does_not_compute_is_refused(file, name, message):
    torch.save(OroJaRGenerator().state_dict() | {name: torch.zeros(1)}, file)
    with pytest.raises(ValueError, match=f"{message}.*{name}.*which SimpleGAN does not compute"):
        load_orojar_gan(file)


def test_normalised_blocks_of_an_eigengan_are_refused(file):
    foreign = PortGenerator()
    block = foreign.blocks[1]
    convolution = block.feature_conv1[1]
    block.feature_conv1 = nn.Sequential(nn.BatchNorm2d(8), nn.LeakyReLU(0.2), convolution)
    torch.save(foreign.state_dict(), file)
    with pytest.raises(ValueError, match=r"it has no blocks\.1\.feature_conv1\.1\.weight"):
        load_eigengan_port(file)


def test_images_of_other_sizes_are_refused(file):
    torch.save(PortGenerator(size=16).state_dict(), file)
    with pytest.raises(ValueError, match="image_size must be a power of two from 32, got 16"):
        load_eigengan_port(file)
    torch.save(OroJaRGenerator(widths=(8, 4, 2, 2)).state_dict(), file)
    with pytest.raises(ValueError, match=r"expected 6 or 7 layers, .* got 5"):
        load_orojar_gan(file)
    torch.save(OroJaRGenerator(widths=(8, 4, 2, 1, 2)).state_dict(), file)
    with pytest.raises(ValueError, match=r"layers\.0\.layers\.conv\.weight must have the shape"):
        load_orojar_gan(file)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (self.target, "w")


@each_layout
def test_no_code_is_run(load, file, tmp_path):
    target = tmp_path / "ran"
    for content in ({"g": Bomb(str(target))}, PortGenerator()):
        torch.save(content, file)
        with pytest.raises(ValueError, match=r"only be read by running code, that of .* refused"):
            load(file)
    file.write_bytes(pickle.dumps(Bomb(str(target))))
    with pytest.raises(ValueError, match=r"checkpoint\.pt"):
        load(file)
    assert not target.exists()


@each_layout
def test_damage(load, file, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load(file)
    for content in (b"", b"hello", b"PK\x03\x04", b"\x80\x02"):
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"must be a file of PyTorch or safetensors: \w"
        ) as raised:
            load(file)
        assert "weights_only" not in str(raised.value)  # no advice to run what is in it
        other = tmp_path / "a.safetensors"
        other.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of safetensors"):
            load(other)
    state = LOADERS[load]().state_dict()
    last = list(state)[-1]
    torch.save(state | {last: state[last].to_sparse()}, file)
    with warnings.catch_warnings(action="ignore"), pytest.raises(ValueError, match="dense tensor"):
        load(file)
    torch.save(state, file)
    with pytest.raises(ValueError, match="holds one state dict, without a part 'g'"):
        load(file, part="g")
    for content in ({}, [1], 3, {"step": 1}, {1: torch.zeros(1)}, torch.zeros(2)):
        torch.save(content, file)
        with pytest.raises(ValueError, match=r"must hold a state dict, .* it holds none"):
            load(file)


def test_a_convolution_is_the_transposed_one_turned():
    """What the port's last layer relies on."""
    convolution = nn.Conv2d(2, 3, 7, padding=3, bias=False)
    x = torch.randn(1, 2, 9, 9)
    turned = convolution.weight.transpose(0, 1).flip(2, 3)
    torch.testing.assert_close(
        functional.conv_transpose2d(x, turned, padding=3), convolution(x), atol=1e-5, rtol=1e-5
    )
