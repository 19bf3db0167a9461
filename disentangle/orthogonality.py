"""Techniques that make a Pre-SVD layer orthogonal: in its gradient, its step size or its weight.

The mathematics are pure functions of tensors; `attach` is the thin shell that runs those which act
on the optimizer, just before each of its steps.

Source: Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119, and TPAMI 2022,
https://arxiv.org/abs/2212.05599.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from disentangle.linalg import polar_factor

# In the order in which they act: the optimal learning rate is that of the gradient in use.
OptimizerTechnique = Literal["nog", "olr"]
LossTechnique = Literal["ol"]
Technique = Literal[OptimizerTechnique, LossTechnique]
OPTIMIZER_TECHNIQUES: tuple[str, ...] = get_args(OptimizerTechnique)
LOSS_TECHNIQUES: tuple[str, ...] = get_args(LossTechnique)


def as_matrix(tensor: Tensor) -> Tensor:
    """A weight or its gradient as a matrix; a view where the memory layout allows it.

    Convolutions `(out, in, kh, kw)` become `(out, in·kh·kw)`. Transposed convolutions are stored
    as `(in, out, kh, kw)` and become `(in, out·kh·kw)`. A matrix stays as it is.

    Args:
        tensor: At least 2 dimensions.

    Returns:
        A matrix with as many rows as the first dimension.

    Raises:
        ValueError: If `tensor` has fewer than 2 dimensions.

    Examples:
        >>> as_matrix(torch.nn.Conv2d(3, 64, kernel_size=3).weight).shape
        torch.Size([64, 27])
    """
    if tensor.ndim < 2:
        raise ValueError(
            "only a tensor of at least 2 dimensions can be taken as a matrix, "
            f"got shape {tuple(tensor.shape)}"
        )
    return tensor.flatten(start_dim=1)


def nearest_orthogonal_gradient(gradient: Tensor) -> Tensor:
    """NOG: the polar factor of a gradient taken as a matrix. Its magnitude is discarded.

    A gradient of zero stays zero, and directions without gradient stay without (see
    `polar_factor`). A gradient with any entry that is not finite is passed through untouched, so
    that whoever looks for overflow still sees it.

    Source: https://arxiv.org/abs/2207.02119.

    Args:
        gradient: As `as_matrix` takes it, floating point.

    Returns:
        The shape and dtype of `gradient`.

    Raises:
        ValueError: If `gradient` has fewer than 2 dimensions or is not floating point.

    Examples:
        >>> nearest_orthogonal_gradient(torch.tensor([[5.0, 0.0], [0.0, -0.1]]))
        tensor([[ 1.,  0.],
                [ 0., -1.]])
    """
    matrix = as_matrix(gradient)
    polar = polar_factor(matrix)
    # One entry tells: all of it is not a number if any of the gradient is not finite.
    lost = polar[:1, :1].isnan()
    return torch.where(lost, matrix, polar).reshape(gradient.shape)


def optimal_learning_rate(weight: Tensor, gradient: Tensor, base_rate: float | Tensor) -> Tensor:
    """OLR: the step size that brings the weight nearest to an orthogonal one, never above a base.

    `η = wᵀw·lᵀw / (wᵀw·lᵀl + 2 (lᵀw)²)` for weight `w` and gradient `l` as vectors, if
    `0 < η < base_rate`, else the base rate, as also when a vector is zero or not finite. It is the
    Newton step `−J′(0) / J″(0)` of `J(η) = ‖w − ηl‖⁴`, the paper's approximation to the distance.

    Source: https://arxiv.org/abs/2207.02119.

    Args:
        weight: Any shape.
        gradient: The shape of `weight`; after NOG, if that is used too.
        base_rate: The learning rate not to exceed, a number or a 0-d tensor.

    Returns:
        0-d, float64, on the device of `weight`.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> optimal_learning_rate(torch.tensor([[3.0]]), torch.tensor([[2.0]]), 1.0).item()
        0.5
        >>> optimal_learning_rate(torch.tensor([[3.0]]), torch.tensor([[2.0]]), 0.1).item()
        0.1
    """
    if weight.shape != gradient.shape:
        raise ValueError(
            "weight and gradient must have the same shape, "
            f"got {tuple(weight.shape)} and {tuple(gradient.shape)}"
        )
    w, l = weight.detach().double().flatten(), gradient.detach().double().flatten()  # noqa: E741
    w_norm, l_norm = w.dot(w).sqrt(), l.dot(l).sqrt()
    # The formula divided by (wᵀw)(lᵀl), whose product of four entries leaves the range sooner.
    cosine = l.dot(w) / w_norm / l_norm
    eta = w_norm / l_norm * cosine / (1 + 2 * cosine**2)
    # A comparison with NaN, from a zero or non-finite vector, is false.
    return torch.where((eta > 0) & (eta < base_rate), eta, base_rate)


def orthogonal_loss(matrices: Iterable[Tensor]) -> Tensor:
    """OL: how far matrices are from orthonormal rows or columns, whichever are fewer.

    The mean over the matrices of `mean((Gram − I)²)`, on the smaller of the two Gram matrices: of
    a 64 × 27 weight, 64 rows cannot be orthonormal. Differentiable. Zero for orthonormal matrices.

    Source: https://arxiv.org/abs/2207.02119.

    Args:
        matrices: Weights as `as_matrix` takes them, at least one.

    Returns:
        0-d, in the dtype of the matrices.

    Raises:
        ValueError: If there is no matrix, or one has fewer than 2 dimensions.

    Examples:
        >>> orthogonal_loss([torch.eye(2), 2 * torch.eye(2)])
        tensor(2.2500)
    """
    losses = []
    for U in map(as_matrix, matrices):
        gram = U @ U.mT if U.shape[0] <= U.shape[1] else U.mT @ U
        identity = torch.eye(gram.shape[0], dtype=U.dtype, device=U.device)
        losses.append((gram - identity).square().mean())
    if not losses:
        raise ValueError("the orthogonal loss needs at least one matrix, got none")
    return torch.stack(losses).mean()


def resolve_parameters(module: nn.Module, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Finds parameters by name, also inside a wrapped module.

    A name is that of a parameter or its end from a dot on: `conv1.weight` finds
    `module.conv1.weight` under DistributedDataParallel and `_orig_mod.conv1.weight` under
    `torch.compile`. The full name of one parameter wins over the end of another.

    Args:
        module: The network.
        names: At least one.

    Returns:
        The parameters under the names that were given, in their order.

    Raises:
        ValueError: If there is no name, if a name finds no parameter or several, if a parameter is
            found twice, or if it has fewer than 2 dimensions.

    Examples:
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 4))
        >>> list(resolve_parameters(torch.nn.ModuleDict({"module": network}), ["0.weight"]))
        ['0.weight']
    """
    available = dict(module.named_parameters(remove_duplicate=False))
    names = _as_list("names", names)
    if not names:
        raise ValueError("names must hold the name of at least one parameter, got none")
    found: dict[str, nn.Parameter] = {}
    for name in names:
        parameter = available[_full_name(name, available)]
        for other, other_parameter in found.items():
            if parameter is other_parameter:
                raise ValueError(f"{other!r} and {name!r} are the same parameter: name it once")
        if parameter.ndim < 2:
            shape = tuple(parameter.shape)
            raise ValueError(f"{name!r} must have at least 2 dimensions, got shape {shape}")
        found[name] = parameter
    return found


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


def _as_list(what: str, names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise ValueError(f"{what} must be a list of names, got the string {names!r}")
    return list(names)


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


def _check_techniques(techniques: Iterable[str]) -> tuple[str, ...]:
    named = _as_list("techniques", techniques)
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
