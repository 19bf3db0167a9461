"""How large the training steps are that benchmarks measure, and where they run."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Scale:
    """Size of a training step.

    Attributes:
        size: Height and width of the images in pixels.
        batch: Images of a step.
        device: Device of the step.
        model: Options of the networks that differ from their defaults.
    """

    size: int
    batch: int
    device: torch.device
    model: tuple[tuple[str, int], ...] = ()


def usual_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronise(device: torch.device) -> None:
    """Waits until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
