"""Conversion of checkpoints that an older version wrote, so that its runs can be resumed.

One thing changed: the last layer of an EigenGAN, see `models/weights_format.py`. Its weight is in
the file of the network and in that of its running average; moments of the same shape are in the
file of the optimizer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.constants import FSDP_MODEL_NAME, OPTIMIZER_NAME, SAFE_MODEL_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor

from disentangle.distributed.dtensor import is_sharded
from disentangle.models import EigenGAN
from disentangle.models.weights_format import (
    LAST_WEIGHT,
    convert_kernel,
    convert_weights,
    is_former,
)


@contextmanager
def converted(
    accelerator: Accelerator, checkpoint: Path, facts: Mapping[str, Any]
) -> Iterator[Path]:
    """Yield a checkpoint in the current format: its own folder, or a converted temporary copy.

    Args:
        accelerator: Accelerator with the networks and optimizers of the run.
        checkpoint: Folder of the checkpoint; it is not changed.
        facts: Content of its manifest.

    Raises:
        ValueError: If its format is unknown.
    """
    former = is_former(facts)
    networks = [accelerator.unwrap_model(network) for network in accelerator._models]
    if not former or not any(isinstance(network, EigenGAN) for network in networks):
        yield checkpoint
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in checkpoint.iterdir():
            (folder / file.name).symlink_to(file.resolve())
        for i, network in enumerate(networks):
            if isinstance(network, EigenGAN):
                ending = f"_{i}" if i else ""
                _convert_network(folder, ending)
                _convert_optimizer(
                    folder / f"{OPTIMIZER_NAME}{ending}.bin",
                    accelerator._optimizers[i],
                    network.to_image.weight,
                )
        for i, average in enumerate(accelerator._custom_objects):
            if isinstance(getattr(average, "module", None), EigenGAN):
                file = folder / f"custom_checkpoint_{i}.pkl"
                _replace(file, convert_weights(_read(file), prefix="module."))
        yield folder


def _convert_network(folder: Path, ending: str) -> None:
    divided = folder / f"{FSDP_MODEL_NAME}{ending}.bin"
    if divided.exists():
        _replace(divided, convert_weights(_read(divided)))
        return
    link = folder / f"{SAFE_MODEL_NAME}{ending}.safetensors"
    weights = convert_weights(load_file(link))
    link.unlink()
    save_file(weights, link)


def _convert_optimizer(file: Path, optimizer: torch.optim.Optimizer, weight: Tensor) -> None:
    """Convert the moments of the last layer's weight: FSDP saves them by name, others by index."""
    content = _read(file)
    parameters = [id(p) for group in optimizer.param_groups for p in group["params"]]
    for key in (LAST_WEIGHT, parameters.index(id(weight))):
        moments = content["state"].get(key, {})
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.ndim == 4:  # not the step count
                moments[name] = _convert_moment(moment, weight)
    _replace(file, content)


def _convert_moment(moment: Tensor, weight: Tensor) -> Tensor:
    made = convert_kernel(moment)
    if is_sharded(weight):
        return made
    # Fused optimizers expect moments in the memory format of the weight.
    return torch.empty_like(weight, dtype=made.dtype, device=made.device).copy_(made)


def _read(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _replace(link: Path, content: Any) -> None:
    """Replace a symbolic link by a file."""
    link.unlink()
    torch.save(content, link)
