"""Checkpoints of the EigenGAN port to PyTorch, as our `EigenGAN`.

The layout is that of https://github.com/bryandlee/eigengan-pytorch, which the code of Song, Sebe
and Wang, https://github.com/KingJamesSong/OrthoImproveCond, shares.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from disentangle.adapters.checkpoint import fill, read_checkpoint, require
from disentangle.models import EigenGAN
from disentangle.models.eigengan import SMALLEST

LAYOUT = "eigengan-pytorch"
PREFERRED = ("g_ema", "g")  # images of the running average are those that the port draws
TO_IMAGE = "to_rgb.0.1.weight"

# Of a block; the numbers are places in a sequence of activation and convolution.
BLOCK = {
    "subspace.U": "projection.U",
    "subspace.L": "projection.L",
    "subspace.mu": "projection.mu",
    "subspace_conv1": "subspace_conv1.0",
    "subspace_conv2": "subspace_conv2.0",
    "feature_conv1": "feature_conv1.1",
    "feature_conv2": "feature_conv2.1",
}


def load_eigengan_port(file: str | Path, *, part: str | None = None) -> EigenGAN:
    """Our `EigenGAN` with the weights of a checkpoint of the PyTorch port.

    All sizes are read from the shapes; the images are those of the port, whose two latents are
    `model.split(z)` of our flat one. The activation, leaky ReLU with slope 0.2, is not in the file:
    a port that was changed to use another gives other images.

    Args:
        file: What the port's training saves, or a state dict of its generator.
        part: Which network of the file; by default the running average `g_ema`, else `g`.

    Returns:
        In evaluation mode on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read without running code, or a tensor is missing, left over, of
            another shape or not finite.
    """
    state = read_checkpoint(file, part=part, preferred=PREFERRED)
    try:
        return _convert(state)
    except (ValueError, RuntimeError) as error:  # the latter of sizes beyond all memory
        raise ValueError(f"{file}: {error}") from error


def _convert(state: Mapping[str, Tensor]) -> EigenGAN:
    sizes = {"fc.weight": 2, "blocks.0.projection.U": 2, TO_IMAGE: 4}
    noise, basis, last = require(state, sizes, LAYOUT)
    blocks = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    with torch.device("meta"):
        model = EigenGAN(
            image_size=SMALLEST << blocks,
            image_channels=last.shape[0],
            basis_dim=basis.shape[0],
            noise_dim=noise.shape[1],
            base_channels=last.shape[1],
            max_channels=max(noise.shape[0] // SMALLEST**2, last.shape[1]),
        )
    names = {key: translate(key) for key in model.state_dict()}
    return fill(model, state, names, layout=LAYOUT)


def translate(key: str) -> str:
    """Their name of a tensor of ours.

    Examples:
        >>> translate("blocks.2.feature_conv1.bias")
        'blocks.2.feature_conv1.1.bias'
    """
    if not key.startswith("blocks."):
        layer, _, kind = key.partition(".")
        return f"{ {'noise_projection': 'fc', 'to_image': 'to_rgb.0.1'}[layer] }.{kind}"
    _, i, rest = key.split(".", 2)
    layer = rest if rest in BLOCK else rest.rpartition(".")[0]
    return f"blocks.{i}.{BLOCK[layer]}{rest.removeprefix(layer)}"
