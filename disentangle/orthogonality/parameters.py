"""Parameters that the techniques act on, and their shapes as matrices."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from torch import Tensor, nn

from disentangle.linalg.checks import check_dense


def as_matrix(tensor: Tensor) -> Tensor:
    """A weight or its gradient as a matrix; a view where the memory layout allows it.

    Convolutions `(out, in, kh, kw)` become `(out, in·kh·kw)`. Transposed convolutions are stored
    as `(in, out, kh, kw)` and become `(in, out·kh·kw)`. A matrix stays as it is.

    Args:
        tensor: At least 2 dimensions; on the meta device too.

    Returns:
        A matrix with as many rows as the first dimension.

    Raises:
        ValueError: If `tensor` is not dense or has fewer than 2 dimensions.

    Examples:
        >>> as_matrix(nn.Conv2d(3, 64, kernel_size=3).weight).shape
        torch.Size([64, 27])
    """
    check_dense("a weight or gradient", tensor, allow_meta=True)
    if tensor.ndim < 2:
        raise ValueError(
            "only a tensor of at least 2 dimensions can be taken as a matrix, "
            f"got shape {tuple(tensor.shape)}"
        )
    return tensor.flatten(start_dim=1)


def resolve_parameters(module: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Finds parameters by name, also inside a wrapped module.

    A name is that of a parameter or its end from a dot on: `conv1.weight` finds
    `module.conv1.weight` under DistributedDataParallel and `_orig_mod.conv1.weight` under
    `torch.compile`. The full name of one parameter wins over the end of another. The name of a
    parametrized weight finds the free parameter behind it: `conv1.weight` also finds
    `conv1.parametrizations.weight.original`.

    Args:
        module: The network.
        names: At least one.

    Returns:
        The parameters under the names that were given, in their order.

    Raises:
        ValueError: If there is no name, if a name finds no parameter or several, if a parameter is
            found twice, or if it has fewer than 2 dimensions.

    Examples:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
        >>> list(resolve_parameters(nn.ModuleDict({"module": network}), ["0.weight"]))
        ['0.weight']
    """
    available = {
        _weight_name(name): parameter
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }
    names = as_list("names", names)
    if not names:
        raise ValueError("names must hold the name of at least one parameter, got none")
    found: dict[str, nn.Parameter] = {}
    for name in names:
        parameter = available[_full_name(_weight_name(name), available)]
        for other, other_parameter in found.items():
            if parameter is other_parameter:
                raise ValueError(f"{other!r} and {name!r} are the same parameter: name it once")
        if parameter.ndim < 2:
            shape = tuple(parameter.shape)
            raise ValueError(
                f"{name!r} must have at least 2 dimensions, got shape {shape} "
                "(FSDP1 and DeepSpeed flatten parameters: use fully_shard)"
            )
        found[name] = parameter
    return found


def as_list(what: str, names: Iterable[str]) -> list[str]:
    """The names; raises `ValueError` at a single string."""
    if isinstance(names, str):
        raise ValueError(f"{what} must be a list of names, got the string {names!r}")
    return list(names)


def _weight_name(name: str) -> str:
    """The name of a parametrized weight, for that of its free parameter; any other stays."""
    return re.sub(r"(^|\.)parametrizations\.(\w+)\.original$", r"\1\2", name)


def _full_name(name: str, available: Iterable[str]) -> str:
    available = list(available)
    if name in available:
        return name
    matches = [full for full in available if full.endswith(f".{name}")]
    if len(matches) > 1:
        raise ValueError(f"{name!r} names {len(matches)} parameters: {', '.join(matches)}")
    if not matches:
        close = get_close_matches(name, available) or available
        raise ValueError(f"no parameter is named {name!r}; there is {', '.join(close) or 'none'}")
    return matches[0]
