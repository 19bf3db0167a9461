"""State dicts out of other projects' files, without running code that is in them."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# What other projects put beside their tensors and what holds data only: the options of a command
# line, and numbers of NumPy, old and new.
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
    *(
        (np._core.multiarray.scalar, f"numpy.{core}.multiarray.scalar")  # type: ignore[attr-defined]
        for core in ("core", "_core")
    ),
]
Model = TypeVar("Model", bound=nn.Module)
LISTED = 3  # names in an error
WRAPPER = "module."  # before every name, if DataParallel was saved


def read_checkpoint(
    file: str | Path, *, part: str | None = None, preferred: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The state dict in a file of PyTorch or safetensors.

    The file is read with `weights_only`: nothing in it is run. The prefix `module.` of all names,
    which DataParallel adds, is left out.

    Args:
        file: Holds a state dict, or a dictionary that holds some.
        part: Which of several state dicts, by its key.
        preferred: Keys that are looked for, in this order, if no `part` is given.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, needs code to be read, or it is not clear which state
            dict is meant.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     torch.save({"g": {"w": torch.ones(1)}, "step": 3}, file.name)
        ...     read_checkpoint(file.name)
        {'w': tensor([1.])}
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint {file}")
    content = _read(file)
    if _is_state(content):
        if part is not None:
            raise ValueError(f"{file} holds one state dict, without a part {part!r}")
        return _unwrap(content)
    parts = {k: v for k, v in content.items() if _is_state(v)} if _is_mapping(content) else {}
    if part is None:
        part = next((key for key in preferred if key in parts), None)
        if part is None and len(parts) == 1:
            (part,) = parts
    if part not in parts:
        what = "say by part which one" if part is None else f"there is no {part!r}"
        raise ValueError(
            f"{file} must hold a state dict, a dictionary of tensors; it holds "
            f"{', '.join(map(repr, parts)) or 'none'}" + (f": {what}" if parts else "")
        )
    return _unwrap(parts[part])


def fill(
    model: Model,
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    *,
    layout: str,
) -> Model:
    """Puts a state dict with other names into a model, all of it and nothing else.

    Args:
        model: On the device `meta`, so that a file of wrong sizes costs no memory; changed in
            place.
        state: By the names of the layout.
        names: For every tensor of the model its name in the layout.
        layout: Whose it is, for errors.

    Returns:
        The model, in evaluation mode, in single precision on the CPU.

    Raises:
        ValueError: If a tensor is missing, left over, of another shape or not finite.
    """
    own = model.state_dict()
    wanted = {names[key]: x.shape for key, x in own.items()}
    if reason := _find_misfit(state, wanted):
        raise ValueError(f"not a whole generator in the layout of {layout}: {reason}")
    model.load_state_dict({key: _copy(state[names[key]]) for key in own}, assign=True)
    return model.eval()


def require(
    state: Mapping[str, Tensor], dimensions: Mapping[str, int], layout: str
) -> list[Tensor]:
    """The tensors whose shapes say the sizes of a network.

    Args:
        state: By the names of the layout.
        dimensions: How many dimensions each must have, by its name.
        layout: Whose it is, for the error.

    Raises:
        ValueError: If one is missing or has other dimensions.
    """
    for name, count in dimensions.items():
        if name not in state:
            raise ValueError(
                f"not a generator in the layout of {layout}: it has no {name}; it has "
                f"{_list(list(state))}"
            )
        if state[name].ndim != count:
            raise ValueError(
                f"not a generator in the layout of {layout}: {name} must have {count} dimensions, "
                f"got the shape {tuple(state[name].shape)}"
            )
    return [state[name] for name in dimensions]


def _read(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except SafetensorError as error:
        raise ValueError(f"{file} is not a file of safetensors: {error}") from error
    except Exception as error:  # each kind of damage raises its own
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{file} can only be read by running code, that of {code[1]}, which is refused: a "
                "file from elsewhere could run anything. Save its state_dict() where you trust it"
            ) from error
        raise ValueError(
            f"{file} must be a file of PyTorch or safetensors: {_shorten(error)}"
        ) from error


def _shorten(error: Exception) -> str:
    """The reason without the advice of PyTorch, which is to let the file run code."""
    reason = str(error) or type(error).__name__
    if reason.startswith("Weights only load failed"):
        return "it is damaged, or of another kind"
    return reason.partition("\n")[0]


def _unwrap(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    wrapped = all(name.startswith(WRAPPER) for name in state)
    return {name.removeprefix(WRAPPER) if wrapped else name: x for name, x in state.items()}


def _is_mapping(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(key, str) for key in content)


def _is_state(content: Any) -> bool:
    return (
        _is_mapping(content)
        and len(content) > 0
        and all(isinstance(x, Tensor) for x in content.values())
    )


def _find_misfit(state: Mapping[str, Tensor], wanted: Mapping[str, torch.Size]) -> str:
    """Return why tensors lack the expected names and shapes; an empty text if they have them."""
    if missing := [name for name in wanted if name not in state]:
        return f"it has no {_list(missing)}"
    if left_over := [name for name in state if name not in wanted]:
        return f"it has {_list(left_over)} too"
    for name, shape in wanted.items():
        x = state[name]
        if x.shape != shape:
            return f"{name} must have the shape {tuple(shape)}, got {tuple(x.shape)}"
        if x.layout != torch.strided:
            return f"{name} must be a dense tensor, got {x.layout}"
        if not (x.is_floating_point() and x.isfinite().all()):
            return f"{name} must hold finite floating-point numbers, got others"
    return ""


def _copy(x: Tensor) -> Tensor:
    """In single precision, in memory of its own."""
    return x.detach().float().clone(memory_format=torch.contiguous_format)


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
