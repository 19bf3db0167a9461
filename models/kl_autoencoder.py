"""The KL autoencoder of latent diffusion, from a local folder or small and fresh.

Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
https://arxiv.org/abs/2112.10752, in the code of diffusers (`AutoencoderKL`).
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import ModelMixin
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFETENSORS_WEIGHTS_NAME

SMALL: dict[str, Any] = {
    "block_out_channels": [32, 64, 64],
    "norm_num_groups": 8,
    "mid_block_add_attention": False,
    "scaling_factor": 1.0,
}


def build_autoencoder(
    source: str | Mapping[str, Any] | None, *, image_size: int, image_channels: int
) -> ModelMixin:
    """An `AutoencoderKL`, loaded or fresh.

    Args:
        source: A folder to load; or arguments of `AutoencoderKL`, where those that are left out are
            as in `SMALL`; or None for that.
        image_size: Height and width of the images in pixels.
        image_channels: Channels of the images.

    Raises:
        FileNotFoundError: As `load_autoencoder`.
        ValueError: As `load_autoencoder`; if an argument is unknown or refused; or if the
            autoencoder takes images of other channels.
    """
    if isinstance(source, str):
        autoencoder = load_autoencoder(source)
    else:
        shape = {
            "in_channels": image_channels,
            "out_channels": image_channels,
            "sample_size": image_size,
        }
        autoencoder = _new_autoencoder(SMALL | shape | dict(source or {}))
    channels = (autoencoder.config.in_channels, autoencoder.config.out_channels)
    if channels != (image_channels, image_channels):
        raise ValueError(
            f"the autoencoder takes images of {channels[0]} channels and makes some of "
            f"{channels[1]}, but image_channels is {image_channels}"
        )
    return autoencoder


def load_autoencoder(folder: str | Path) -> ModelMixin:
    """The `AutoencoderKL` that diffusers saved in a local folder, in float32.

    Of a pipeline this is its folder `vae`.

    Args:
        folder: Holds `config.json` and the weights (safetensors).

    Raises:
        FileNotFoundError: If the folder or one of the two files is missing.
        ValueError: If it is another model, or a weight is missing, left over or of another shape.
    """
    from diffusers import AutoencoderKL  # takes seconds

    for name in ("config.json", SAFETENSORS_WEIGHTS_NAME):
        if not (Path(folder) / name).is_file():
            raise FileNotFoundError(f"no KL autoencoder in {folder}: expected a file {name} there")
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        if config["_class_name"] != "AutoencoderKL":
            raise ValueError(f"its config.json names the class {config['_class_name']!r}")
        # Either would have diffusers look for more than the two files.
        if "quantization_config" in config or (Path(folder) / SAFE_WEIGHTS_INDEX_NAME).exists():
            raise ValueError("its weights must be in one file and not quantised")
        # diffusers renames the weights of old files; a plain load_state_dict would refuse them.
        autoencoder, found = AutoencoderKL.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except Exception as error:  # damaged files raise errors of many types
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder} does not hold a whole AutoencoderKL: {reason}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found[kind]:
            listed = ", ".join(map(str, sorted(found[kind])[:3]))
            reason = f"{kind.replace('_', ' ')} such as {listed}"
            raise ValueError(f"{folder} does not hold a whole AutoencoderKL: {reason}")
    return autoencoder


def describe_autoencoder(autoencoder: ModelMixin) -> dict[str, Any]:
    """All arguments of an autoencoder, as `build_autoencoder` takes them."""
    return {key: value for key, value in autoencoder.config.items() if not key.startswith("_")}


def _new_autoencoder(arguments: dict[str, Any]) -> ModelMixin:
    """Fresh; its blocks are the usual ones unless the arguments name them."""
    from diffusers import AutoencoderKL  # takes seconds

    known = inspect.signature(AutoencoderKL).parameters.keys()
    if unknown := arguments.keys() - known:
        raise ValueError(
            f"AutoencoderKL has no argument {min(unknown)!r}; there is {', '.join(known)}"
        )
    try:
        depth = len(arguments["block_out_channels"])
        blocks = {
            "down_block_types": ["DownEncoderBlock2D"] * depth,
            "up_block_types": ["UpDecoderBlock2D"] * depth,
        }
        return AutoencoderKL(**blocks | arguments)
    except Exception as error:  # arguments of wrong kinds raise errors of many types
        raise ValueError(f"AutoencoderKL does not take these arguments: {error}") from error
