"""Size and device of the training steps that are measured."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scale:
    """Size of a training step.

    Attributes:
        size: Height and width of the images in pixels.
        batch: Images per step.
        device: Device to run on.
        model: Options of the networks other than their defaults.
    """

    size: int
    batch: int
    device: torch.device
    model: tuple[tuple[str, int], ...] = ()


def usual_device() -> torch.device:
    """Return a GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronise(device: torch.device) -> None:
    """Wait until a device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
