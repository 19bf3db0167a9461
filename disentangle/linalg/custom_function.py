"""Custom functions of autograd that `torch.func.grad`, `vmap` and `jvp` go through.

They are written as https://docs.pytorch.org/docs/stable/notes/extending.func.html asks for, but
their rule for forward mode is called `tangent`: `torch.compile` takes no function with a `jvp`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# Two private names of torch save 30 µs per call. Without them, everything works as well.


def transforms_active() -> bool:
    """Return whether a transform of `torch.func` is in progress."""
    return getattr(torch._C, "_are_functorch_transforms_active", lambda: True)()


def _dual_numbers_active() -> bool:
    return getattr(forward_ad, "_current_level", 0) >= 0


class NoSecondDerivativeError(RuntimeError):
    """A second derivative through a function that has only a first one.

    Args:
        subject: The function.
        advice: An alternative, after a colon.
    """

    def __init__(self, subject: str, advice: str = "") -> None:
        super().__init__(
            f"{subject} has no second derivative, which torch.func.hessian, one transform of "
            f"torch.func within another and create_graph=True ask for{advice}"
        )


def call(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Apply a custom function in the cheapest form that works here.

    Args:
        function: Has `forward`, `setup_context`, `backward`, `tangent` with the signature of `jvp`,
            and either `vmap` or `generate_vmap_rule`.
        *inputs: Arguments of its `forward`.
    """
    if torch.compiler.is_compiling():
        return function.apply(*inputs)
    if transforms_active():
        return _with_jvp(function).apply(*inputs)
    return (_eager(function).apply if _is_differentiated(inputs) else function.forward)(*inputs)


def _is_differentiated(inputs: tuple[Any, ...]) -> bool:
    recorded = any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    return (recorded and torch.is_grad_enabled()) or _dual_numbers_active()


@cache
def _with_jvp(function: Any) -> Any:
    return type(function.__name__, (function,), {"jvp": staticmethod(function.tangent)})


@cache
def _eager(function: Any) -> Any:
    """The form without `setup_context`, for which torch inspects a signature at each call."""

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = function.forward(*inputs)
        function.setup_context(ctx, inputs, output)
        return output

    rules = {"forward": forward, "backward": function.backward, "jvp": function.tangent}
    static = {name: staticmethod(rule) for name, rule in rules.items()}
    return type(function.__name__, (torch.autograd.Function,), static)


def operate(compute: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply operations of torch to tensors within a `tangent`.

    In a `jvp` rule, torch drops the dependence of plain operations on outer transforms: `jvp` of
    `jvp` would be wrong, without an error. Custom functions keep it, so the operations become one.

    Args:
        compute: Differentiable by `torch.func`.
        *tensors: Its arguments.

    Examples:
        >>> operate(torch.mul, torch.tensor(2.0), torch.tensor(3.0))
        tensor(6.)
    """
    return _Operations.apply(compute, *tensors) if transforms_active() else compute(*tensors)


class _Operations(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(compute: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return compute(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.compute, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pull_back = torch.func.vjp(ctx.compute, *ctx.saved_tensors)[1]
        return None, *pull_back(gradient)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor) -> Tensor:
        def push_forward(*tensors: Tensor) -> Tensor:
            primals, directions = tensors[: len(tangents)], tensors[len(tangents) :]
            return torch.func.jvp(ctx.compute, primals, directions)[1]

        return operate(push_forward, *ctx.saved_tensors, *tangents)
