"""Checkpoints of OroJaR's simple GAN, as our `SimpleGAN`.

The layout is that of https://github.com/csyxwei/OroJaR, folder `simplegan_experiments`, which the
code of Song, Sebe and Wang, https://github.com/KingJamesSong/OrthoImproveCond, shares.
"""

from collections.abc import Mapping
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from disentangle.adapters.checkpoint import fill, read_checkpoint, require
from disentangle.models import SimpleGAN
from disentangle.models.simple_gan import GENERATOR_WIDTHS

LAYOUT = "OroJaR's simple GAN"
IMAGE_SIZES = {len(widths) + 1: size for size, widths in GENERATOR_WIDTHS.items()}  # by layers
# What their blocks can compute and ours do not, by what it leaves in the names.
UNSUPPORTED = {
    "layers.0.layers.instancenorm": "the first layer is normalised",
    "batchnorm": "batch normalisation",
    "weight_orig": "spectral normalisation",
    "running_mean": "instance normalisation by running statistics",
}


def load_orojar_gan(file: str | Path, *, part: str | None = None) -> SimpleGAN:
    """Our `SimpleGAN` with the weights of a generator of OroJaR's code.

    All sizes are read from the shapes; the images are those of OroJaR. The activations, leaky ReLU
    with slope 0.2 and tanh, are not in the file: code that was changed to use others gives other
    images.

    Args:
        file: The `…_netG.pth` that OroJaR's training saves, a state dict.
        part: Which state dict of the file, if there are several.

    Returns:
        In evaluation mode on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read without running code; if its network has a normalisation
            that ours has not; or if a tensor is missing, left over, of another shape or not finite.
    """
    state = read_checkpoint(file, part=part)
    try:
        return _convert(state)
    except (ValueError, RuntimeError) as error:  # the latter of sizes beyond all memory
        raise ValueError(f"{file}: {error}") from error


def _convert(state: Mapping[str, Tensor]) -> SimpleGAN:
    for mark, what in UNSUPPORTED.items():
        if found := [name for name in state if mark in name]:
            raise ValueError(f"{what} ({found[0]}), which SimpleGAN does not compute")
    layers = next(i for i in count() if not any(k.startswith(f"layers.{i}.") for k in state))
    if layers not in IMAGE_SIZES:
        expected = " or ".join(map(str, IMAGE_SIZES))
        raise ValueError(
            f"no generator in the layout of {LAYOUT}: expected {expected} layers, layers.0 and so "
            f"on, got {layers}"
        )
    sizes = {f"layers.{i}.layers.conv.weight": 4 for i in (0, layers - 1)}
    first, last = require(state, sizes, LAYOUT)
    with torch.device("meta"):
        model = SimpleGAN(
            image_size=IMAGE_SIZES[layers],
            image_channels=last.shape[0],
            latent_dim=first.shape[0],
            base_channels=last.shape[1],
        )
    names = {key: translate(key, layers) for key in model.state_dict()}
    return fill(model, state, names, layout=LAYOUT)


def translate(key: str, layers: int) -> str:
    """Their name of a tensor of ours.

    Examples:
        >>> translate("norms.0.bias", 6)
        'layers.1.layers.instancenorm.bias'
    """
    layer, _, kind = key.partition(".")
    if layer in ("latent_projection", "to_image"):
        return f"layers.{0 if layer == 'latent_projection' else layers - 1}.layers.conv.{kind}"
    i, _, kind = kind.partition(".")
    name = {"convolutions": "conv", "norms": "instancenorm"}[layer]
    return f"layers.{int(i) + 1}.layers.{name}.{kind}"
