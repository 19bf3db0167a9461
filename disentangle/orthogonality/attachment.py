"""NOG and OLR on an optimizer: what runs just before each of its steps."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from disentangle.orthogonality.parameters import as_list
from disentangle.orthogonality.techniques import (
    OPTIMIZER_TECHNIQUES,
    nearest_orthogonal_gradient,
    optimal_learning_rate,
)


class Attachment:
    """Techniques at work on an optimizer; what `attach` returns.

    As a context manager it removes itself at the end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Mapping[str, nn.Parameter],
        techniques: Sequence[str],
    ) -> None:
        self._techniques = techniques
        self._parameters = list(parameters.values())
        # (group, its scheduled rate, the rate in its place) of the step in progress.
        self._replaced: list[tuple[dict[str, Any], float | Tensor, Tensor]] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Undoes the hooks. Parameter groups stay divided: a scheduler may count on them."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> "Attachment":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @torch.no_grad()
    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # If the last step raised, its rates are still in place.
        self._restore_rates()
        # The optimizer itself is the first of `args`.
        _check_step(optimizer, args[1] if len(args) > 1 else kwargs.get("closure"))
        if "nog" in self._techniques:
            for parameter in self._parameters:
                if parameter.grad is not None:
                    # In place: the gradient may be a view of DistributedDataParallel's bucket.
                    parameter.grad.copy_(nearest_orthogonal_gradient(parameter.grad))
        if "olr" in self._techniques:
            self._replace_rates(optimizer)

    def _after_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._restore_rates()

    def _replace_rates(self, optimizer: Optimizer) -> None:
        # Looked up at each step: `load_state_dict` replaces the groups.
        groups = {id(g["params"][0]): g for g in optimizer.param_groups if len(g["params"]) == 1}
        for weight in self._parameters:
            if weight.grad is None:
                continue
            group = groups[id(weight)]
            scheduled = group["lr"]
            rate = optimal_learning_rate(weight, weight.grad, scheduled)
            # Fused kernels on CUDA read it as float32; on the CPU float64 is the exact number.
            group["lr"] = rate.float() if rate.is_cuda else rate
            self._replaced.append((group, scheduled, group["lr"]))

    def _restore_rates(self) -> None:
        for group, scheduled, rate in self._replaced:
            if group["lr"] is rate:
                group["lr"] = scheduled
        self._replaced.clear()


def attach(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], techniques: Iterable[str]
) -> Attachment:
    """Lets NOG and OLR act on some parameters before each step of an optimizer.

    They see the gradient as the optimizer would: averaged over processes, accumulated, clipped. NOG
    acts first, in whatever order they are named. Without a technique nothing is done.

    Attach to the optimizer itself, before `accelerator.prepare` and, for OLR, before a scheduler is
    made: OLR gives each parameter its own parameter group, in place. During the step the learning
    rate of that group is the optimal one, a 0-d tensor; before and after, it is the scheduled one,
    the base rate of OLR. With `fused=True` that takes no host synchronisation.

    With a gradient scaler, call `scaler.unscale_(optimizer)` before `scaler.step(optimizer)`: a
    fused optimizer would unscale only inside its step. On steps that overflow nothing is changed.

    Args:
        optimizer: Holds the parameters.
        parameters: By name, as from `resolve_parameters`; at least one.
        techniques: Of `OPTIMIZER_TECHNIQUES`.

    Returns:
        What removes them again.

    Raises:
        ValueError: If a technique is unknown, there are no parameters, the optimizer does not hold
            one, is a wrapper, already has techniques on one or, for OLR, has a scheduler. At a
            step: if it is given a closure, or gradients that are still scaled.

    Examples:
        >>> from disentangle.orthogonality import resolve_parameters
        >>> network = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1, fused=True)
        >>> attachment = attach(optimizer, resolve_parameters(network, ["weight"]), ["nog", "olr"])
        >>> network(torch.randn(8, 4)).square().mean().backward()
        >>> optimizer.step()
        >>> torch.allclose(network.weight.grad @ network.weight.grad.T, torch.eye(2), atol=1e-6)
        True
    """
    chosen = _check_techniques(techniques)
    _check_optimizer(optimizer, parameters)
    if "olr" in chosen:
        if any("initial_lr" in group for group in optimizer.param_groups):
            raise ValueError(
                "olr needs its own parameter groups, which the optimizer's scheduler would not "
                "know: attach it before the scheduler is made"
            )
        for parameter in parameters.values():
            _give_own_group(optimizer, parameter)
    return Attachment(optimizer, parameters, chosen)


def _check_techniques(techniques: Iterable[str]) -> tuple[str, ...]:
    named = as_list("techniques", techniques)
    for name in named:
        if name not in OPTIMIZER_TECHNIQUES:
            choices = ", ".join(OPTIMIZER_TECHNIQUES)
            raise ValueError(f"{name!r} is no technique on an optimizer; choose from {choices}")
    return tuple(name for name in OPTIMIZER_TECHNIQUES if name in named)


def _check_optimizer(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    if isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        raise ValueError(
            f"expected the optimizer itself, got {type(optimizer).__name__}, a wrapper around it: "
            "attach before accelerator.prepare"
        )
    if not parameters:
        raise ValueError("expected at least one parameter to attach to, got none")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    hooks = optimizer._optimizer_step_pre_hooks.values()
    attachments = [getattr(hook, "__self__", None) for hook in hooks]
    taken = {id(p) for a in attachments if isinstance(a, Attachment) for p in a._parameters}
    for name, parameter in parameters.items():
        if id(parameter) not in held:
            raise ValueError(f"the optimizer does not hold the parameter {name!r}")
        if id(parameter) in taken:
            raise ValueError(f"{name!r} already has techniques: attach all of them at once")


def _give_own_group(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    """Moves a parameter to a group of its own, with the options of the group it was in."""
    group, index = next(
        (group, index)
        for group in optimizer.param_groups
        for index, other in enumerate(group["params"])
        if other is parameter
    )
    if len(group["params"]) > 1:
        # A deep copy: a learning rate that is a tensor would be shared between the groups.
        own = deepcopy({key: value for key, value in group.items() if key != "params"})
        own["params"] = [group["params"].pop(index)]
        if "param_names" in group:
            own["param_names"] = [group["param_names"].pop(index)]
        optimizer.add_param_group(own)
        group = own
    if group.get("foreach"):
        # There is nothing to batch in a group of one, and Adam's path refuses a tensor as rate.
        group["foreach"] = False


def _check_step(optimizer: Optimizer, closure: object) -> None:
    if closure is not None:
        raise ValueError(
            "step() must be called without a closure: it computes the gradient anew, after NOG and "
            "OLR have seen the one before"
        )
    if getattr(optimizer, "grad_scale", None) is not None:
        raise ValueError(
            "expected unscaled gradients: call scaler.unscale_(optimizer) before "
            "scaler.step(optimizer), since a fused optimizer unscales only inside its step"
        )
