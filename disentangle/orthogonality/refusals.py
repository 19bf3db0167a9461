"""Checks of what NOG, OLR and NOU cannot work with: when they are attached, and at a step."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import ASGD, LBFGS, Adam, Optimizer, SparseAdam

from disentangle.distributed.dtensor import is_sharded
from disentangle.linalg.checks import check_floating
from disentangle.orthogonality.groups import Group, groups_of_parameters
from disentangle.orthogonality.nog import NOG_SCALES
from disentangle.orthogonality.nou import check_precise
from disentangle.orthogonality.parameters import as_list
from disentangle.orthogonality.rate_trial import step_ratio
from disentangle.orthogonality.step_hooks import original_class
from disentangle.orthogonality.techniques import DIRECTION_TECHNIQUES, OPTIMIZER_TECHNIQUES

_FLATTENED = (
    "FullyShardedDataParallel (FSDP1) and DeepSpeed flatten parameters, and the matrix is lost: "
    "use DistributedDataParallel or fully_shard (FSDP2)"
)


def check_techniques(techniques: Iterable[str]) -> tuple[str, ...]:
    """The techniques in the order in which they act."""
    named = as_list("techniques", techniques)
    for name in named:
        if name not in OPTIMIZER_TECHNIQUES:
            choices = ", ".join(OPTIMIZER_TECHNIQUES)
            raise ValueError(f"{name!r} is no technique on an optimizer; choose from {choices}")
    if set(DIRECTION_TECHNIQUES) <= set(named):
        raise ValueError(
            "nog and nou cannot be combined: nog orthogonalises the gradient, and nou the update, "
            "whatever the gradient was"
        )
    return tuple(name for name in OPTIMIZER_TECHNIQUES if name in named)


def check_nog_scale(scale: str, techniques: Sequence[str]) -> None:
    """Raise unless a scale is known, and goes with NOG."""
    if scale not in NOG_SCALES:
        raise ValueError(f"nog_scale must be one of {', '.join(NOG_SCALES)}, got {scale!r}")
    if scale != "unit" and "nog" not in techniques:
        chosen = ", ".join(techniques) or "none"
        raise ValueError(f"nog_scale {scale} requires the technique nog, got {chosen}")


def check_optimizer(optimizer: Optimizer, techniques: Sequence[str]) -> None:
    """Refuses what is no optimizer, or one whose steps the techniques cannot reach."""
    kind = type(optimizer)
    # By name: neither package is needed to tell.
    if any(
        base.__module__.partition(".")[0] == "deepspeed"
        or base.__name__ in ("DeepSpeedOptimizerWrapper", "DummyOptim")
        for base in kind.__mro__
    ):
        raise ValueError(f"{kind.__name__} is an optimizer of DeepSpeed. {_FLATTENED}")
    if isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        raise ValueError(
            f"expected the optimizer itself, got {kind.__name__}, a wrapper around it: "
            "attach before accelerator.prepare"
        )
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"expected a torch.optim.Optimizer, got {kind.__name__}")
    divided = kind.__name__ == "ZeroRedundancyOptimizer"
    if divided and (set(techniques) - {"nog"} or getattr(optimizer, "_overlap_with_ddp", False)):
        raise ValueError(
            "ZeroRedundancyOptimizer steps an optimizer inside it, which olr's rates do not reach, "
            "whose weight decay nou does not know, nor nog with overlap_with_ddp=True: use "
            "fully_shard (FSDP2)"
        )
    if isinstance(optimizer, LBFGS):
        raise ValueError("LBFGS computes gradients anew within its step: choose another optimizer")
    if isinstance(optimizer, SparseAdam):
        raise ValueError(
            "SparseAdam takes sparse gradients only, and the techniques dense ones only: choose "
            "another optimizer, such as Adam, and sparse=False in embeddings"
        )


def check_parameters(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> None:
    """Refuses parameters that the optimizer does not hold or that are no real matrices."""
    if not parameters:
        raise ValueError("expected at least one parameter to attach to, got none")
    held = groups_of_parameters(optimizer)
    for name, parameter in parameters.items():
        if parameter.ndim < 2:
            shape = tuple(parameter.shape)
            raise ValueError(
                f"{name!r} must have at least 2 dimensions, got shape {shape}. {_FLATTENED}"
            )
        check_floating(repr(name), parameter, allow_meta=True)
        if id(parameter) not in held:
            raise ValueError(f"the optimizer does not hold the parameter {name!r}")


def check_made_updates(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> None:
    """Raise unless the updates that an optimizer makes can be replaced after its step."""
    for name, parameter in parameters.items():
        check_precise(repr(name), parameter)
    kind = original_class(optimizer)
    # By name: the package is not needed to tell.
    if any(base is ASGD or "schedulefree" in base.__name__.lower() for base in kind.__mro__):
        raise ValueError(
            f"{kind.__name__} keeps copies of the weights, from which its next step or its result "
            "is computed, without what nou changes: choose another optimizer, such as SGD or Adam"
        )
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise ValueError("nou has no derivative: choose differentiable=False")


def check_own_rates(optimizer: Optimizer, parameters: Mapping[str, Tensor]) -> None:
    """Raise if an optimizer cannot give each parameter its own learning rate at each step."""
    if any("initial_lr" in group for group in optimizer.param_groups):
        raise ValueError(
            "olr needs its own parameter groups, which the optimizer's scheduler would not "
            "know: attach it before the scheduler is made"
        )
    held = groups_of_parameters(optimizer)
    for name, parameter in parameters.items():
        fused = held[id(parameter)].get("fused")
        if is_sharded(parameter) and fused and not isinstance(optimizer, Adam):
            raise ValueError(
                f"{name!r} is a DTensor, for which torch has fused kernels with a tensor as "
                f"learning rate in Adam and AdamW only, got {type(optimizer).__name__}: choose one "
                "of these, or fused=False"
            )


def check_rate_scales_step(optimizer: Optimizer, parameters: Iterable[Tensor]) -> None:
    """Raise if the steps of an optimizer are not proportional to the learning rate of each."""
    kind, groups = type(optimizer).__name__, groups_of_parameters(optimizer)
    # One trial for all parameters that are treated alike.
    alike = {(id(groups[id(p)]), p.ndim, p.dtype, p.device): p for p in parameters}
    for parameter in alike.values():
        group = groups[id(parameter)]
        if group.get("lr") is None:
            raise ValueError(f"olr needs an optimizer with a learning rate, got {kind} without one")
        ratio = step_ratio(optimizer, group, parameter)
        if ratio is None and not parameter.is_meta:
            warnings.warn(
                f"olr could not verify that steps of {kind} are proportional to the learning rate, "
                "since its class cannot be constructed from its options alone",
                stacklevel=4,
            )
        if ratio is not None and not math.isclose(ratio, 2, rel_tol=0.05):
            raise ValueError(
                f"olr sets the learning rate of each step, but steps of {kind} are not "
                f"proportional to it (twice the rate, {ratio:.2g} times the step): choose another "
                "optimizer, such as SGD or Adam"
            )


def check_step(
    optimizer: Optimizer,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    techniques: Sequence[str],
) -> None:
    """Refuses a step that would use another gradient than the hooks see."""
    # The optimizer itself is the first of `args`.
    if (args[1] if len(args) > 1 else kwargs.get("closure")) is not None:
        raise ValueError(
            "step() must be called without a closure: it computes the gradient anew, after the "
            "techniques have seen the one before"
        )
    scaled = getattr(optimizer, "grad_scale", None) is not None
    if scaled and not {"nog", "olr"}.isdisjoint(techniques):
        raise ValueError(
            "expected unscaled gradients: call scaler.unscale_(optimizer) before "
            "scaler.step(optimizer), since a fused optimizer unscales only inside its step"
        )


def check_gradients(parameters: Mapping[str, Tensor], groups: Mapping[int, Group]) -> None:
    """Refuses parameters that left the optimizer, and sparse gradients; never a value."""
    for name, parameter in parameters.items():
        if id(parameter) not in groups:
            raise ValueError(
                f"the optimizer holds another parameter in place of {name!r} since techniques were "
                "attached: with FSDP2, attach after fully_shard, or after accelerator.prepare to "
                f"the optimizer inside the prepared one. {_FLATTENED}"
            )
        gradient = parameter.grad
        if gradient is not None and gradient.layout != torch.strided:
            raise ValueError(
                f"the gradient of {name!r} must be dense, got {gradient.layout}: an embedding "
                "gives such a one with sparse=False"
            )
