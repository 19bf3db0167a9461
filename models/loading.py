"""Models from folders written by `save_pretrained`, every argument and weight accounted for."""

import json
from pathlib import Path

from diffusers import ModelMixin
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file

from disentangle.models.eigengan import EigenGAN, EigenGANDiscriminator
from disentangle.models.latent_vae import LatentVAE
from disentangle.models.resnet import ResNet
from disentangle.models.simple_gan import SimpleGAN, SimpleGANDiscriminator
from disentangle.models.subspace_vae import SubspaceVAE

MODEL_CLASSES = {
    cls.__name__: cls
    for cls in (
        EigenGAN,
        EigenGANDiscriminator,
        LatentVAE,
        ResNet,
        SimpleGAN,
        SimpleGANDiscriminator,
        SubspaceVAE,
    )
}


def load_model(folder: str | Path) -> ModelMixin:
    """The model saved in a folder, in evaluation mode on the CPU.

    Stricter than `from_pretrained`, which warns of a weight that is missing or left over and goes
    on with a random one, and which asks a hub when the folder does not exist.

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
    except ValueError as error:
        raise ValueError(f"{config_file} is not JSON: {error}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if not isinstance(name, str) or name not in MODEL_CLASSES:
        known = ", ".join(MODEL_CLASSES)
        raise ValueError(f"{config_file} names the class {name!r}, expected one of {known}")
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        model = MODEL_CLASSES[name](**arguments)
        model.load_state_dict(load_file(weights_file))
    except (TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} does not hold a whole {name}: {error}") from error
    return model.eval()
