"""Nearest orthogonal update (NOU): the polar factor in place of the update an optimizer made.

NOG orthogonalises the gradient, which Adam's scaling, momentum and weight decay change afterwards.
NOU orthogonalises what comes out of them, at the length that the optimizer chose. It is not in the
papers of NOG; with SGD and momentum it is Muon (https://kellerjordan.github.io/posts/muon/) with an
exact polar factor and a kept norm.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, optim
from torch.optim import Optimizer

from disentangle.distributed.dtensor import gather, is_sharded, shard_like
from disentangle.linalg import polar_factors
from disentangle.linalg.checks import check_floating
from disentangle.linalg.primitives import reciprocal
from disentangle.orthogonality.groups import Group
from disentangle.orthogonality.parameters import as_matrix
from disentangle.orthogonality.step_hooks import original_class

# They decay the weight itself and have no option that says so. PyTorch 2.8 has no Muon.
_DECOUPLED = tuple(
    getattr(optim, name) for name in ("AdamW", "Adafactor", "Muon") if hasattr(optim, name)
)


class Step(NamedTuple):
    """Starting point of an update.

    Attributes:
        before: Weight before the step.
        kept: Share of it that decoupled weight decay leaves, `1 − lr · weight_decay`; 1 if decay is
            added to the gradient, which makes it part of the update.
    """

    before: Tensor
    kept: float | Tensor = 1.0


def nearest_orthogonal_update(before: Tensor, after: Tensor, kept: float | Tensor = 1.0) -> Tensor:
    """NOU: the weight after a step, with the nearest orthogonal update of the same length.

    `d W + polar(u) · ‖u‖_F / ‖polar(u)‖_F` for the weight `W` before the step, the share `d` of it
    that is kept, and the update `u = W′ − d W` of the weight `W′` after the step.

    Singular values of `u` below `eps(dtype) ‖W‖_F` are rounding of the weights and count as zero:
    directions without update stay without. Where no singular value is above, where `u` is not
    finite, and where no step was made (`W′ = W`), the result is `W′`. Rounding the result to its
    dtype leaves singular values of the update equal to within `eps(dtype) ‖W‖_F` only.

    Of DTensors every process gathers the update, and must call this. Without a derivative.

    Args:
        before: Weight before the step, as `as_matrix` takes it, float32 or float64.
        after: Weight after the step, of the shape and dtype of `before`.
        kept: Share of `before` that decoupled weight decay leaves, a number or 0-d.

    Returns:
        The shape and dtype of `before`.

    Raises:
        ValueError: If the weights are not dense, not float32 or float64, have fewer than 2
            dimensions, or differ in shape or dtype.

    Examples:
        >>> before = torch.eye(2)
        >>> after = before - torch.diag(torch.tensor([0.3, 0.4]))
        >>> nearest_orthogonal_update(before, after)
        tensor([[0.6464, 0.0000],
                [0.0000, 0.6464]])
        >>> round((nearest_orthogonal_update(before, after) - before).norm().item(), 4)
        0.5
    """
    check_precise("before", before)
    if before.shape != after.shape or before.dtype != after.dtype:
        raise ValueError(
            "before and after must have the same shape and dtype, got "
            f"{tuple(before.shape)} {before.dtype} and {tuple(after.shape)} {after.dtype}"
        )
    result = after.detach().clone()
    orthogonalise_updates_([Step(before.detach().clone(), kept)], [result])
    return result


@torch.no_grad()
def orthogonalise_updates_(steps: Sequence[Step], weights: Sequence[Tensor]) -> None:
    """NOU of several weights in place, which may share kernels; `Step.before` is overwritten.

    Args:
        steps: Starting point of each update.
        weights: Each weight after its step; changed to `nearest_orthogonal_update`.
    """
    if len(weights) > 1 and any(map(is_sharded, weights)):
        # One full matrix at a time.
        for step, weight in zip(steps, weights, strict=True):
            orthogonalise_updates_([step], [weight])
        return
    floors = [
        torch.finfo(W.dtype).eps * gather(torch.linalg.vector_norm(W)).double() for W, _ in steps
    ]
    made = [_is_made(step, weight) for step, weight in zip(steps, weights, strict=True)]
    for step, weight in zip(steps, weights, strict=True):
        # d W − W′ = −u, in the memory of W: fresh memory costs more than the arithmetic.
        (step.before.mul_(step.kept) if _decays(step) else step.before).sub_(weight)
    negated = [as_matrix(gather(step.before)) for step in steps]
    polars = polar_factors(negated, floors)
    for i, weight in enumerate(weights):
        correction = _correction(negated[i], polars[i], made[i]).reshape(weight.shape)
        weight.add_(shard_like(correction, weight) if is_sharded(weight) else correction)


def kept_share(optimizer: Optimizer, group: Group) -> float | Tensor:
    """Share of a weight that the decoupled weight decay of a step leaves: `Step.kept`.

    Decay counts as decoupled where PyTorch says so: by the option `decoupled_weight_decay` of the
    group, and in AdamW, Adafactor and Muon.

    Examples:
        >>> weight = torch.nn.Parameter(torch.eye(2))
        >>> for kind in (optim.AdamW, optim.Adam):
        ...     optimizer = kind([weight], lr=0.1, weight_decay=0.5)
        ...     print(kept_share(optimizer, optimizer.param_groups[0]))
        0.95
        1.0
    """
    decoupled = issubclass(original_class(optimizer), _DECOUPLED)
    if not (decoupled or group.get("decoupled_weight_decay")) or group["weight_decay"] == 0:
        return 1.0
    rate = group["lr"]
    rate = rate.detach().reshape(()) if isinstance(rate, Tensor) else rate
    return 1 - rate * group["weight_decay"]


def check_precise(name: str, weight: Tensor) -> None:
    """Raise `ValueError` unless a weight is dense, and float32 or float64."""
    check_floating(name, weight, allow_meta=True)
    if weight.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} must be float32 or float64 for nou, since rounding to half precision leaves "
            f"little of an update, got {weight.dtype}"
        )


def _decays(step: Step) -> bool:
    """True if decoupled weight decay takes part of the weight."""
    return isinstance(step.kept, Tensor) or step.kept != 1


def _is_made(step: Step, weight: Tensor) -> bool | Tensor:
    """False where the optimizer skipped a step within, and has not decayed the weight either."""
    return gather((weight != step.before).any()) if _decays(step) else True


def _correction(negated: Tensor, polar: Tensor, made: bool | Tensor) -> Tensor:
    """Difference between the weight with the nearest orthogonal update and `W′`.

    Args:
        negated: `−u`.
        polar: Its polar factor, overwritten.
        made: Whether there was a step.
    """
    length = torch.linalg.vector_norm(polar, dtype=torch.float64)
    factor = torch.linalg.vector_norm(negated, dtype=torch.float64) * reciprocal(length)
    correction = polar.mul_(-factor).add_(negated)
    # Zero for an update below the floor, not a number for one that is not finite.
    usable = (length > 0) & made
    return torch.where(usable, correction, torch.zeros_like(length), out=correction)
