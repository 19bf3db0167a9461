"""Sums and maxima over all processes of a distributed run, with their gradient."""

import torch
from torch import Tensor, distributed


def count_processes() -> int:
    """How many processes train together: 1 where none were asked for."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes, the same in each of them.

    The gradient is that of the sum of the losses of all processes: what a distributed wrapper
    averages. Every process must call it, and go backward through it, in the same order.

    Args:
        x: Of this process; in all of one shape, dtype and kind of device.

    Examples:
        >>> sum_over_processes(torch.ones(2))
        tensor([1., 1.])
    """
    return x if count_processes() == 1 else _Sum.apply(x)


def max_over_processes(x: Tensor) -> Tensor:
    """The maximum of each element of a tensor over all processes, the same in each of them.

    The gradient is as that of `sum_over_processes`; it goes to the process that has the maximum.

    Args:
        x: Of this process; in all of one shape, dtype and kind of device.

    Examples:
        >>> max_over_processes(torch.ones(2))
        tensor([1., 1.])
    """
    return x if count_processes() == 1 else _Max.apply(x)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, G: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return _Sum.apply(G)


class _Max(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        largest = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        has_it = (x == largest).to(x)
        ctx.save_for_backward(has_it / _Sum.apply(has_it))
        return largest

    @staticmethod
    def backward(ctx, G: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (share,) = ctx.saved_tensors
        return share * _Sum.apply(G)
