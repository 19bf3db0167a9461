"""A trial of an optimizer: whether the length of a step follows the learning rate set for it."""

import math
from inspect import signature

import torch
from torch import Tensor
from torch.optim import Optimizer

from disentangle.orthogonality.groups import Group, own_options
from disentangle.orthogonality.step_hooks import original_class


def step_ratio(optimizer: Optimizer, group: Group, like: Tensor) -> float | None:
    """The factor by which a step becomes longer when its learning rate is doubled.

    Measured on throw-away optimizers of the same class and options, with one small parameter of
    zeros: the second step is made at rate 1 or 2, after the same first one. The ratio is 2 where
    a step is proportional to its rate, and 1 where it takes the rate of an earlier step.

    Args:
        optimizer: The optimizer; it is not changed.
        group: One of its parameter groups.
        like: A parameter of the group; the trial has its number of dimensions, dtype and device.

    Returns:
        The ratio; `None` if the trial tells nothing: the class cannot be constructed from options
        alone, its steps are zero, or the parameter is on the meta device.

    Raises:
        ValueError: If it makes steps with a number as learning rate, but not with a tensor.

    Examples:
        >>> weight = torch.nn.Parameter(torch.ones(2, 2))
        >>> for kind in (torch.optim.SGD, torch.optim.ASGD):
        ...     optimizer = kind([weight], lr=0.1)
        ...     print(step_ratio(optimizer, optimizer.param_groups[0], weight))
        2.0
        1.0
    """
    if like.is_meta:
        return None
    kind = original_class(optimizer)
    # Without its own rate, which may be part of a graph.
    options = own_options({**group, "lr": 1.0})
    try:
        _second_step(kind, options, like, (1.0, 1.0))
    except Exception:  # a class outside torch can need anything
        return None
    # As OLR sets them.
    dtype = torch.float32 if like.is_cuda else torch.float64
    one, two = torch.tensor([1.0, 2.0], dtype=dtype, device=like.device).unbind()
    try:
        short, long = (_second_step(kind, options, like, (one, rate)) for rate in (one, two))
    except Exception as error:
        raise ValueError(
            f"olr sets a tensor as learning rate, with which {kind.__name__} cannot step: {error}"
        ) from error
    ratio = (long.norm() / short.norm()).item()
    return ratio if math.isfinite(ratio) else None


def _second_step(
    kind: type[Optimizer], options: Group, like: Tensor, rates: tuple[float | Tensor, ...]
) -> Tensor:
    """The last of several steps from zero, each at its own rate, with the same gradient."""
    weight = torch.zeros((2,) * like.ndim, dtype=like.dtype, device=like.device)
    gradient = torch.arange(1, weight.numel() + 1).to(weight).reshape(weight.shape)
    accepted = signature(kind).parameters
    optimizer = kind(
        [{**options, "params": [weight]}],
        **{name: option for name, option in options.items() if name in accepted},
    )
    for rate in rates:
        weight.zero_()
        weight.grad = gradient.clone()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return weight.double()
