"""NOG, OLR and NOU on an optimizer: hooks around each of its steps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from disentangle.orthogonality.groups import Group, give_own_group, groups_of_parameters
from disentangle.orthogonality.nog import (
    NogScale,
    nearest_orthogonal_gradient,
    nearest_orthogonal_gradients,
)
from disentangle.orthogonality.nou import Step, kept_share, orthogonalise_updates_
from disentangle.orthogonality.olr import optimal_learning_rate
from disentangle.orthogonality.refusals import (
    check_gradients,
    check_made_updates,
    check_nog_scale,
    check_optimizer,
    check_own_rates,
    check_parameters,
    check_rate_scales_step,
    check_step,
    check_techniques,
)
from disentangle.orthogonality.step_hooks import StepHooks, step_hooks


class Attachment(StepHooks):
    """Techniques at work on an optimizer; what `attach` returns.

    As a context manager it removes itself at the end. Parameter groups stay divided: a scheduler
    may count on them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Mapping[str, Tensor],
        techniques: Sequence[str],
        nog_scale: NogScale,
    ) -> None:
        self._techniques = techniques
        self._nog_scale = nog_scale
        self._parameters = dict(parameters)
        # (group, its scheduled rate, the rate in its place) of the step in progress.
        self._replaced: list[tuple[Group, float | Tensor, Tensor]] = []
        # The parameters that the step in progress moves, and where from.
        self._begun: list[tuple[Tensor, Step]] = []
        super().__init__(optimizer)

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # The end of a step that raised is missed if it was bound to a name before `attach`, as
        # Accelerate does with a gradient scaler.
        self._end_step()
        check_step(optimizer, args, kwargs, self._techniques)
        # Looked up at each step: `load_state_dict` replaces the groups.
        groups = groups_of_parameters(optimizer)
        check_gradients(self._parameters, groups)
        if "nou" in self._techniques:
            check_made_updates(optimizer, self._parameters)
        with torch.set_grad_enabled(bool(optimizer.defaults.get("differentiable"))):
            if "nog" in self._techniques:
                _orthogonalise_gradients(self._parameters.values(), self._nog_scale)
            if "olr" in self._techniques:
                for parameter in self._parameters.values():
                    if parameter.grad is not None:
                        self._replace_rate(groups[id(parameter)], parameter, parameter.grad)
        if "nou" in self._techniques:
            self._begun = [
                (moved, Step(moved.detach().clone(), kept_share(optimizer, groups[id(moved)])))
                for moved in self._parameters.values()
                if moved.grad is not None
            ]

    def _replace_rate(self, group: Group, parameter: Tensor, gradient: Tensor) -> None:
        # The formula is that of the step w − ηl.
        gradient = -gradient if group.get("maximize") else gradient
        # A copy, where the step will change what the derivative of the rate needs.
        weight = parameter.clone() if torch.is_grad_enabled() else parameter
        rate = optimal_learning_rate(weight, gradient, group["lr"])
        # Fused kernels on CUDA read it as float32; on the CPU float64 is the exact number.
        rate = rate.float() if rate.is_cuda else rate
        self._replaced.append((group, group["lr"], rate))
        group["lr"] = rate

    @torch.no_grad()
    def _after_step(self, *_: object) -> None:
        """Orthogonalise the updates that were made."""
        orthogonalise_updates_(
            [step for _, step in self._begun], [moved for moved, _ in self._begun]
        )
        self._end_step()

    def _end_step(self) -> None:
        """Restore the scheduled rates, and free the memory of the step."""
        self._begun.clear()
        for group, scheduled, rate in self._replaced:
            if group["lr"] is rate:
                group["lr"] = scheduled
        self._replaced.clear()


def attach(
    optimizer: Optimizer,
    parameters: Mapping[str, Tensor],
    techniques: Iterable[str],
    *,
    nog_scale: NogScale = "unit",
) -> Attachment:
    """Attach NOG, OLR or NOU to some parameters, to act around each step of an optimizer.

    NOG and OLR act before the step and see the gradient as the optimizer would: averaged over
    processes, accumulated, clipped. NOG acts first, in whatever order they are named. NOU acts
    after the step, on the update that was made, whatever the optimizer is; so it cannot be combined
    with NOG. Without a technique nothing is done.

    **Learning rate.** OLR gives each parameter its own parameter group, in place. During the step
    the learning rate of that group is the optimal one, a 0-d tensor; before and after, also if the
    step raises, it is the scheduled one, the base rate of OLR: any scheduler made later goes on as
    without OLR. With `fused=True` (on CUDA also with `capturable=True`) nothing waits for a value
    on the GPU.

    **Optimizers for OLR.** The step must be proportional to the learning rate at that step, which a
    trial on a throw-away optimizer of the same class and options verifies. This refuses ASGD and
    Rprop, which take the rate of an earlier step, and Adafactor, which caps it. A class that
    cannot be constructed from its options alone is accepted with a warning.

    **Optimizers for NOU.** Any that moves the parameter itself, in float32 or float64. Decoupled
    weight decay is kept (see `kept_share`); decay that is added to the gradient is part of the
    update. Refused: ASGD and schedule-free optimizers, which keep copies of the weights,
    ZeroRedundancyOptimizer, and `differentiable=True`. On steps that the optimizer skips, as a
    fused one does on overflow, nothing is changed. During a step NOU keeps a copy of the
    parameters.

    **Copies and checkpoints.** An optimizer that is copied by `copy.deepcopy` or `pickle` keeps its
    techniques, acting on the copied parameters; copy the network in the same call. For this its
    class is replaced by a subclass with the same name until the techniques are removed. A state
    dict does not hold them: before `load_state_dict` attach to the same parameters as when the
    state was saved, since PyTorch matches states to parameters by their place in the groups.

    **What the optimizer adds.** The optimal rate is that of a plain step `w − ηl`, or `w + ηl` with
    `maximize=True`. Momentum, Adam's scaling and a weight decay that is added to the gradient, as
    in SGD, come after NOG and OLR and are not in it. NOU comes after all of them.

    **Clipping.** `clip_grad_norm_` before the step changes nothing under NOG with
    `nog_scale="unit"`, which discards the magnitude; with `nog_scale="gradient"` NOG keeps the
    clipped norm. Without NOG, OLR sees the clipped gradient. To clip what NOG gives, register a
    step pre-hook on the optimizer after `attach`; OLR has then chosen its rate for the unclipped
    one.

    **Gradient scaler.** Call `scaler.unscale_(optimizer)` before `scaler.step(optimizer)`: a fused
    optimizer would unscale only inside its step, too late for NOG and OLR. On steps that overflow
    nothing is changed.

    **Several processes.** DistributedDataParallel works as it is. With FSDP2 attach after
    `fully_shard` to the optimizer of the sharded parameters (under Accelerate, to the optimizer
    inside the prepared one): NOG gathers each gradient in full, NOU each update. Otherwise attach
    to the optimizer itself, before `accelerator.prepare`. Refused: FSDP1 and DeepSpeed, which
    flatten parameters.

    Args:
        optimizer: Holds the parameters.
        parameters: By name, as from `resolve_parameters`; at least one.
        techniques: Names from `OPTIMIZER_TECHNIQUES`.
        nog_scale: With NOG, Frobenius norm of the gradient that it gives: `unit` for singular
            values of 1, as published; `gradient` for that of the gradient it is given.

    Returns:
        Handle that removes them again.

    Raises:
        ValueError: If a technique is unknown, NOG and NOU are combined, or `nog_scale` is unknown
            or given without NOG; if there are no parameters, or one is no matrix, is
            not held by the optimizer or already has techniques; if the optimizer is a wrapper,
            LBFGS, SparseAdam or DeepSpeed's. For OLR: if the optimizer has a scheduler, its steps
            are not proportional to the learning rate or do not accept a tensor as such, or the
            parameters are DTensors and it is fused, unless it is Adam or AdamW. For NOU: if the
            optimizer is one of those refused above, or a parameter is in half precision. At a step:
            if it is given a closure, or gradients that are still scaled or sparse, or if its
            parameters have been replaced.

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
    chosen = check_techniques(techniques)
    check_nog_scale(nog_scale, chosen)
    check_optimizer(optimizer, chosen)
    check_parameters(optimizer, parameters)
    if "nou" in chosen:
        check_made_updates(optimizer, parameters)
    _check_free(optimizer, parameters)
    if "olr" in chosen:
        check_own_rates(optimizer, parameters)
        check_rate_scales_step(optimizer, parameters.values())
        for parameter in parameters.values():
            give_own_group(optimizer, parameter)
    return Attachment(optimizer, parameters, chosen, nog_scale)


def _check_free(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> None:
    attachments = [hooks for hooks in step_hooks(optimizer) if isinstance(hooks, Attachment)]
    active = [attachment for attachment in attachments if attachment._techniques]
    taken = {id(parameter) for a in active for parameter in a._parameters.values()}
    for name, parameter in parameters.items():
        if id(parameter) in taken:
            raise ValueError(f"{name!r} already has techniques: attach all of them at once")


def _orthogonalise_gradients(parameters: Iterable[Tensor], scale: NogScale) -> None:
    if torch.is_grad_enabled():
        # Not in place: autograd needs the gradient that was there.
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = nearest_orthogonal_gradient(parameter.grad, scale=scale)
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    results = nearest_orthogonal_gradients(gradients, scale=scale)
    for gradient, result in zip(gradients, results, strict=True):
        # In place: the gradient may be a view of DistributedDataParallel's bucket.
        gradient.copy_(result)
