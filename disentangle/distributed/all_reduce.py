"""Differentiable sums and maxima over all processes of a distributed run."""

import torch
from torch import Tensor, distributed


def count_processes() -> int:
    """Return the number of processes that train together, 1 without `torch.distributed`."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes (all-reduce).

    The gradient is that of the sum of the losses of all processes, which a distributed wrapper
    averages. Every process must call it, and run its backward pass, in the same order.

    Args:
        x: Tensor of this process; shape, dtype and device type must be the same in all processes.

    Examples:
        >>> sum_over_processes(torch.ones(2))
        tensor([1., 1.])
    """
    return x if count_processes() == 1 else _Sum.apply(x)


def max_over_processes(x: Tensor) -> Tensor:
    """Return the elementwise maximum of a tensor over all processes (all-reduce).

    The gradient is that of `sum_over_processes`; it flows to the process that has the maximum.

    Args:
        x: Tensor of this process; shape, dtype and device type must be the same in all processes.

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
