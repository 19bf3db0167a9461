"""Forward-mode derivatives that can be differentiated again."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import jvp
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Function = Callable[[Tensor], tuple[Tensor, ...]]


def derive(function: Function, point: Tensor, direction: Tensor, *, order: int) -> tuple:
    """Compute the derivative of an order along a direction, for each output of a function.

    Works inside `torch.func.vmap`, and can be differentiated by whatever the function holds. That
    is more than `torch.func.jvp` can: see `SoundNorms`, in which it runs.

    Args:
        function: Function that returns a tuple of tensors.
        point: Point at which to differentiate, a contiguous tensor.
        direction: Direction, a contiguous tensor of the same shape.
        order: Order of the derivative, at least 1.

    Returns:
        As many tensors as the function returns, of their shapes.

    Examples:
        >>> point, direction = torch.tensor([2.0]), torch.tensor([3.0])
        >>> derive(lambda x: (x**3, 5 * x), point, direction, order=2)  # 6 x · 3²
        (tensor([108.]), tensor([0.]))
    """
    _load_rules()

    def derivative(inner: Tensor, order: int) -> tuple[Tensor, ...]:
        if order == 0:
            return function(inner)
        return jvp(lambda p: derivative(p, order - 1), (inner,), (direction,))[1]

    with SoundNorms():
        return derivative(point, order)


class SoundNorms(TorchFunctionMode):
    """Context in which InstanceNorm is computed from primitives and other norms are refused.

    Torch's own forward-mode derivative of a norm is right, but its derivative is not: it holds the
    mean and the deviation constant. So the second derivative, and the gradient by the weights of a
    first derivative, are silently wrong, https://github.com/pytorch/pytorch/issues/196699.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func in (functional.instance_norm, torch.instance_norm):
            return _instance_norm(*args, **(kwargs or {}))
        if func in UNSOUND:
            raise ValueError(
                "exact derivatives need norms that torch derives right, which is InstanceNorm "
                f"here, got {func.__name__}: use finite differences"
            )
        return func(*args, **(kwargs or {}))


UNSOUND = (
    *(functional.batch_norm, functional.layer_norm, functional.group_norm),
    *(torch.batch_norm, torch.layer_norm, torch.group_norm),
)


def _instance_norm(
    h: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Compute `torch.instance_norm` of `(N, C, …)`, without running statistics."""
    if running_mean is not None or not use_input_stats:
        raise ValueError("exact derivatives need an InstanceNorm without running statistics")
    variance, mean = torch.var_mean(h, tuple(range(2, h.ndim)), correction=0, keepdim=True)
    shape = (-1,) + (1,) * (h.ndim - 2)
    normalised = (h - mean) * (variance + eps).rsqrt()
    if weight is not None:
        normalised = normalised * weight.view(shape)  # (C,) -> (C, 1, …)
    return normalised if bias is None else normalised + bias.view(shape)


@cache
def _load_rules() -> None:
    """Make torch load its forward-mode rules, at which some versions warn of their own code."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)")
        forward_ad.make_dual(torch.zeros(1), torch.zeros(1))
