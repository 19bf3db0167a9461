"""Recording of the outputs of chosen layers while a generator decodes."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from disentangle.orthogonality.parameters import as_list


def record_layers(
    decode: Callable[[Tensor], Any], module: nn.Module, names: Iterable[str]
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Turn `decode` into a function that returns the outputs of chosen layers.

    That function runs `decode` up to the last of the layers and no further. It works under
    autograd and inside the transforms of `torch.func`. It uses hooks, which a module compiled by
    `torch.compile` skips: pass the module inside, which has the same weights.

    Args:
        decode: Function that decodes latents `(n, D)` with `module`, such as its method `decode`.
        module: Module that contains the layers.
        names: Names of the layers, as in `module.named_modules()`, at least one.

    Returns:
        Function from latents to the output of the first call of each layer, in the order of
        `names`. It raises `ValueError` if a layer does not run or does not return a tensor.

    Raises:
        ValueError: If there is no name, or one is unknown or repeated.

    Examples:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
        >>> activations = record_layers(network, network, ["0", "1"])
        >>> [activation.shape for activation in activations(torch.zeros(5, 2))]
        [torch.Size([5, 3]), torch.Size([5, 3])]
    """
    layers = _find_layers(module, names)

    def outputs(z: Tensor) -> tuple[Tensor, ...]:
        found: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hook = layer.register_forward_hook(_recorder(found, name, len(layers)))
                hooks.callback(hook.remove)
            with suppress(_AllFound):
                decode(z)
        if missing := [name for name in layers if name not in found]:
            raise ValueError(f"layers must run when decoding, these did not: {', '.join(missing)}")
        return tuple(found[name] for name in layers)

    return outputs


class _AllFound(BaseException):  # not an Exception, which a layer in between may catch
    """Signal to end decoding once every layer was recorded."""


def _recorder(found: dict[str, Tensor], name: str, count: int) -> Callable[..., None]:
    def record(layer: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            kind = type(output).__name__
            raise ValueError(f"the layer {name!r} must give a tensor, got {kind}")
        found.setdefault(name, output)
        if len(found) == count:
            raise _AllFound

    return record


def _find_layers(module: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    available = dict(module.named_modules())
    names = as_list("layers", names)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"layers must be distinct names, at least one, got {names}")
    for name in names:
        if name not in available:
            close = get_close_matches(name, available) or [other for other in available if other]
            choices = ", ".join(close) or "none"
            raise ValueError(f"no layer is named {name!r}; there is {choices}")
    return {name: available[name] for name in names}
