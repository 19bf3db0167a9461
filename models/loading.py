"""Models from folders written by `save_pretrained`, every argument and weight accounted for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from disentangle.models.eigengan import EigenGAN, EigenGANDiscriminator
from disentangle.models.latent_vae import LatentVAE
from disentangle.models.resnet import ResNet
from disentangle.models.simple_gan import SimpleGAN, SimpleGANDiscriminator
from disentangle.models.subspace_vae import SubspaceVAE
from disentangle.models.weights_format import convert_weights, is_former

# By the name that a run's configuration gives them.
GENERATORS = {"eigengan": EigenGAN, "simple_gan": SimpleGAN}
DISCRIMINATORS = {"eigengan": EigenGANDiscriminator, "simple_gan": SimpleGANDiscriminator}
VAES = {"subspace_vae": SubspaceVAE, "latent_vae": LatentVAE}
CLASSIFIERS = {"resnet": ResNet}

# By the name that `save_pretrained` writes.
MODEL_CLASSES: dict[str, type[ModelMixin]] = {
    cls.__name__: cls
    for kind in (GENERATORS, DISCRIMINATORS, VAES, CLASSIFIERS)
    for cls in kind.values()
}


def load_model(folder: str | Path) -> ModelMixin:
    """The model saved in a folder, in evaluation mode on the CPU.

    Stricter than `from_pretrained`, which warns of a weight that is missing or left over and goes
    on with a random one, and which asks a hub when the folder does not exist. Weights that an older
    version saved in another format are converted; the images stay the same.

    Args:
        folder: Where `save_pretrained` wrote `config.json` and its weights (safetensors).

    Raises:
        FileNotFoundError: If the folder or one of the two files is missing.
        ValueError: If the class is not one of this toolkit's, if it does not take the arguments,
            or if a weight is missing, left over or of another shape.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SubspaceVAE(image_size=32).save_pretrained(folder)
        ...     type(load_model(folder)).__name__
        'SubspaceVAE'
    """
    config_file, weights_file = (
        Path(folder) / name for name in ("config.json", SAFETENSORS_WEIGHTS_NAME)
    )
    for file in (config_file, weights_file):
        if not file.is_file():
            raise FileNotFoundError(f"no model in {folder}: expected a file {file.name} there")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config_file} is not JSON: {error}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in MODEL_CLASSES:
        known = ", ".join(sorted(MODEL_CLASSES))
        raise ValueError(f"{config_file} names the class {name!r}, expected one of {known}")
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        outline, weights = _outline(weights_file), load_file(weights_file)
        if name == EigenGAN.__name__ and is_former(config):
            outline, weights = convert_weights(outline), convert_weights(weights)
        model = _build(MODEL_CLASSES[name], arguments, outline)
        model.load_state_dict(weights)
    # Arguments of wrong kinds, and damaged weights, make for errors of many types.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{folder} does not hold a whole {name}: {error}") from error
    return model.eval()


def _outline(weights_file: Path) -> dict[str, Tensor]:
    """The weights in a file by their shapes, without their values."""
    with safe_open(weights_file, framework="pt") as weights:
        shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def _build(
    cls: type[ModelMixin], arguments: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> ModelMixin:
    """The model of some arguments, if the outlined weights are those of such a model.

    It is outlined too at first, since arguments of others can ask for any amount of memory.

    Raises:
        ValueError: If an argument would read further files.
        RuntimeError: If a weight is missing, left over or of another shape.
    """
    if isinstance(arguments.get("autoencoder"), str):
        raise ValueError("its autoencoder must be given by its arguments, got the name of a folder")
    with torch.device("meta"):
        cls(**arguments).load_state_dict(weights)
    return cls(**arguments)
