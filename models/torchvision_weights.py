"""Published classifier weights in torchvision's format, from a file, into a `ResNet`."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from disentangle.models.resnet import ResNet


def load_torchvision_weights(
    model: ResNet, path: str | Path, *, leave_out: Collection[str] = ()
) -> None:
    """Puts the weights of a torchvision ResNet into ours, all but those of modules left out.

    Left out are, for fine-tuning, `fc` where the classes are others; `bn1` where decorrelated batch
    normalisation, `pooling` and `fc` where covariance pooling stands; `conv1` in the small stem, or
    where its weight is constrained. These stay as they are. Nothing is put in unless all of the
    rest fits.

    Args:
        model: Changed in place.
        path: A state dict that `torch.save` wrote, as torchvision's `resnet18-….pth` and others
            are; never downloaded.
        leave_out: Names of modules, as in `model`, with all that is in them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds something else, a weight is missing, left over
            or of another shape, or nothing in model or file has a name that is left out.

    Examples:
        >>> import tempfile
        >>> from torchvision.models import resnet18
        >>> model = ResNet(depth=18, image_size=64, stem="large", classes=5)
        >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        ...     torch.save(resnet18().state_dict(), file.name)
        ...     load_torchvision_weights(model, file.name, leave_out=["fc"])
    """
    if isinstance(leave_out, str):
        raise ValueError(f"leave_out must be a list of names, got the string {leave_out!r}")
    state, own = _read_state(Path(path)), model.state_dict()
    for name in leave_out:
        if not any(_is_within(key, name) for key in (*own, *state)):
            raise ValueError(f"leave_out must name modules of the network, got {name!r}")
    state, wanted = (
        {k: x for k, x in tensors.items() if not any(_is_within(k, name) for name in leave_out)}
        for tensors in (state, own)
    )
    if misfits := _misfits(state, wanted):
        raise ValueError(
            f"{path} does not fit the network, whose modules can be left out by name: "
            + "; ".join(misfits)
        )
    try:
        model.load_state_dict(state, strict=False)
    except Exception as error:  # of tensors that are sparse, for example, or have no memory
        raise ValueError(f"{path} must hold plain tensors: {error}") from error


def _is_within(key: str, module: str) -> bool:
    return key.startswith(f"{module}.")


def _misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """List the differences that keep one state dict from taking the place of another."""
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} must have the shape {tuple(x.shape)}, got {tuple(state[key].shape)}"
        for key, x in wanted.items()
        if key in state and x.shape != state[key].shape
    ]
    return [
        *([f"it has no {', '.join(missing)}"] if missing else []),
        *([f"it has {', '.join(unexpected)} too"] if unexpected else []),
        *shapes,
    ]


def _read_state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(f"there are no weights at {file}; nothing is downloaded")
    try:
        # Unpickling anything but tensors could run code of the file.
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # each kind of damage raises its own
        raise ValueError(f"{file} must be a file of PyTorch tensors: {error}") from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(x, Tensor) for key, x in state.items()
    ):
        raise ValueError(f"{file} must hold a dictionary of tensors, got {type(state).__name__}")
    return state
