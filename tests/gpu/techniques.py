"""Compare steps under the orthogonality techniques with the equations; refuse synchronisation.

The equations are written out here and evaluated in float64 on the CPU with PyTorch's optimizers.
To add a technique, add an entry to `TECHNIQUES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import SGD, Adam, AdamW, Optimizer

from disentangle.orthogonality import (
    NogScale,
    as_matrix,
    attach,
    constrain_weight,
    orthogonal_loss,
    resolve_parameters,
)
from disentangle.orthogonality.nou import kept_share
from tests.helpers.waiting import refusing_to_wait

from .harness import (
    Checks,
    Setting,
    SkippedError,
    check_error,
    full_precision,
    relative_error,
    require,
)
from .sessions import TASKS, train_without_waiting

PRE_SVD = ("0.weight", "3.weight")
SCALE, LOSS_WEIGHT = 20.0, 10.0  # of the two terms of the loss
BF16 = torch.bfloat16


# The equations


def orthogonal(gradient: Tensor) -> Tensor:
    """`U Vᵀ` of the thin SVD."""
    U, _, Vh = torch.linalg.svd(as_matrix(gradient), full_matrices=False)
    return (U @ Vh).reshape(gradient.shape)


def orthogonal_as_long(gradient: Tensor) -> Tensor:
    """`U Vᵀ` with the norm of the gradient, or of an update."""
    Q = orthogonal(gradient)
    return Q * gradient.norm() / Q.norm()


def optimal_rate(weight: Tensor, gradient: Tensor, base: float) -> float:
    """`wᵀw·lᵀw / (wᵀw·lᵀl + 2 (lᵀw)²)` where it is between 0 and the base rate."""
    w, g = weight.flatten(), gradient.flatten()
    ww, gg, gw = w @ w, g @ g, g @ w
    rate = (ww * gw / (ww * gg + 2 * gw**2)).item()
    return rate if 0 < rate < base else base


def distance_from_orthogonal(weight: Tensor) -> Tensor:
    """`mean((Gram − I)²)` of the smaller Gram matrix."""
    U = as_matrix(weight)
    gram = U @ U.mT if U.shape[0] <= U.shape[1] else U.mT @ U
    return (gram - torch.eye(len(gram), dtype=U.dtype)).square().mean()


def unit_norm(weight: Tensor) -> Tensor:
    """The weight divided by its largest singular value."""
    return weight / torch.linalg.matrix_norm(as_matrix(weight), ord=2)


def unchanged(tensor: Tensor) -> Tensor:
    """Identity."""
    return tensor


@dataclass(frozen=True)
class Technique:
    """A technique and its equations.

    Attributes:
        name: Name in results and in the option `orthogonality`.
        attached: Names for `attach`.
        constraint: Name for `constrain_weight`.
        loss: Whether the orthogonal loss is added.
        gradient: Gradient that the optimizer should receive.
        rate: Learning rate of a weight, from it, its gradient and the base rate.
        weight: Weight that stands for a free parameter.
        update: Update that should be made, from that of the optimizer.
        nog_scale: Norm that NOG gives the gradient.
        half: Whether weights may be in half precision.
        lr: Base rate.
        steps: Number of steps to compare.
    """

    name: str
    attached: tuple[str, ...] = ()
    constraint: Any = "free"
    loss: bool = False
    gradient: Callable[[Tensor], Tensor] = unchanged
    rate: Callable[[Tensor, Tensor, float], float] = lambda weight, gradient, base: base
    weight: Callable[[Tensor], Tensor] = unchanged
    update: Callable[[Tensor], Tensor] = unchanged
    nog_scale: NogScale = "unit"
    half: bool = True
    lr: float = 0.05
    steps: int = 3


TECHNIQUES = [
    Technique("nog", ("nog",), gradient=orthogonal),
    Technique("nou", ("nou",), update=orthogonal_as_long, half=False),
    # The base rates are above the optimal ones.
    Technique("olr", ("olr",), rate=optimal_rate, lr=0.5),
    Technique("nog,olr", ("nog", "olr"), gradient=orthogonal, rate=optimal_rate, lr=0.5),
    Technique("ol", loss=True),
    Technique("ow", constraint="orthogonal", weight=orthogonal),
    Technique("ow_kernel", constraint="orthonormal_kernel", weight=orthogonal),
    # The power iteration lags behind a weight that moves.
    Technique("sn", constraint="spectral", weight=unit_norm, steps=1),
]

NORM_KEPT = Technique("nog", ("nog",), gradient=orthogonal_as_long, nog_scale="gradient")

OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "SGD": (SGD, {"momentum": 0.9}),
    "SGD, foreach": (SGD, {"momentum": 0.9, "foreach": True}),
    "SGD, fused": (SGD, {"momentum": 0.9, "fused": True}),
    "Adam": (Adam, {}),
    "Adam, foreach": (Adam, {"foreach": True}),
    "Adam, fused": (Adam, {"fused": True}),
    "Adam, capturable": (Adam, {"capturable": True}),
    "AdamW, foreach": (AdamW, {"weight_decay": 0.1, "foreach": True}),
    "AdamW, fused": (AdamW, {"weight_decay": 0.1, "fused": True}),
    "AdamW, capturable": (AdamW, {"weight_decay": 0.1, "capturable": True}),
}
IMPLEMENTATIONS = {"foreach", "fused", "capturable"}
# Other implementations read a rate that is a tensor on the host.
WITHOUT_WAITING = ("SGD, fused", "Adam, fused", "AdamW, fused", "Adam, capturable")


def checks(setting: Setting) -> Checks:
    """Yield the checks of this part."""
    device = setting.device
    for technique in TECHNIQUES:
        name = technique.name
        for kind in OPTIMIZERS:
            yield f"{name} with {kind}", partial(check_steps, technique, kind, device)
        yield f"{name}, channels last", partial(check_channels_last, technique, device)
        yield f"{name} with a GradScaler and an overflow", partial(check_scaler, technique, device)
        if technique.half:
            yield f"{name}, weights in bfloat16", partial(check_bfloat16, technique, device)
        yield f"{name}, autocast to bfloat16", partial(check_autocast, technique, device)
        for kind in WITHOUT_WAITING:
            yield (
                f"{name} with {kind} does not wait",
                partial(check_waiting, technique, kind, device),
            )
        yield (
            f"{name} with a GradScaler does not wait",
            partial(check_scaler_waiting, technique, device),
        )
    for kind in OPTIMIZERS:
        yield f"nog that keeps the norm with {kind}", partial(check_steps, NORM_KEPT, kind, device)
    for kind in WITHOUT_WAITING:
        yield (
            f"nog that keeps the norm with {kind} does not wait",
            partial(check_waiting, NORM_KEPT, kind, device),
        )
    yield "what waits is noticed", partial(check_watch, device)
    for task in TASKS:
        for technique in [Technique(""), *TECHNIQUES]:
            yield (
                f"a run of the task {task} with [{technique.name}] does not wait",
                partial(train_without_waiting, task, technique.name, setting),
            )


# Ours


def build_network() -> nn.Sequential:
    """Build a smooth network with a convolution and a linear layer."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(128, 10))


class Training:
    """A small network with a technique, trained on a device.

    Args:
        technique: Technique to train with.
        kind: Name in `OPTIMIZERS`.
        device: Device to train on.
        dtype: Dtype of the weights.
        memory_format: Memory format of images and convolutions.
    """

    def __init__(
        self,
        technique: Technique,
        kind: str,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        if "capturable" in kind and device.type != "cuda":
            raise SkippedError("capturable optimizers need CUDA")
        self.technique, self.kind, self.device = technique, kind, device
        torch.manual_seed(3)
        network = build_network()
        for layer in (network[0], network[3]):
            constrain_weight(layer, "weight", technique.constraint)
        self.network = network.to(device, dtype).to(memory_format=memory_format)
        self.pre_svd = resolve_parameters(self.network, PRE_SVD)
        optimizer, options = OPTIMIZERS[kind]
        self.optimizer = optimizer(self.network.parameters(), lr=technique.lr, **options)
        attach(self.optimizer, self.pre_svd, technique.attached, nog_scale=technique.nog_scale)
        images = torch.randn(32, 3, 6, 6)
        self.images = images.to(device, dtype).contiguous(memory_format=memory_format)

    def loss(self) -> Tensor:
        """Compute a loss that decreases with the weights, so that the optimal rate is positive."""
        loss = SCALE * self.network(self.images).float().square().mean()
        if self.technique.loss:
            loss = loss + LOSS_WEIGHT * orthogonal_loss(self.pre_svd.values())
        return loss

    def step(self) -> None:
        """Run a step."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()

    def parameters(self) -> dict[str, Tensor]:
        """Trained parameters by their names in the unconstrained network."""
        biases = {name: p for name, p in self.network.named_parameters() if "bias" in name}
        return self.pre_svd | biases


# The same in float64 on the CPU


class Reference:
    """The equations of a technique in float64, starting from the state of a training."""

    def __init__(self, training: Training) -> None:
        self.technique, self.images = training.technique, training.images.cpu().double()
        self.network = build_network().double()
        state = {name: p.detach().cpu().double() for name, p in training.parameters().items()}
        self.network.load_state_dict(state)
        self.parameters = dict(self.network.named_parameters())
        self.weights = {name: self.parameters[name] for name in PRE_SVD}
        optimizer, options = OPTIMIZERS[training.kind]
        options = {name: x for name, x in options.items() if name not in IMPLEMENTATIONS}
        biases = [p for name, p in self.parameters.items() if name not in PRE_SVD]
        groups = [{"params": [p]} for p in self.weights.values()]  # a rate for each weight
        groups.append({"params": biases})
        self.optimizer = optimizer(groups, lr=self.technique.lr, foreach=False, **options)

    def loss(self) -> Tensor:
        """Compute the loss of `Training`."""
        weights = {name: self.technique.weight(weight) for name, weight in self.weights.items()}
        loss = SCALE * functional_call(self.network, weights, (self.images,)).square().mean()
        if self.technique.loss:
            distances = [distance_from_orthogonal(weight) for weight in self.weights.values()]
            loss = loss + LOSS_WEIGHT * torch.stack(distances).mean()
        return loss

    def step(self) -> bool:
        """Run a step; return whether a rate was below the base rate."""
        self.optimizer.zero_grad()
        self.loss().backward()
        return self.descend()

    def descend(self) -> bool:
        """Run an optimizer step on the present gradients."""
        technique = self.technique
        for group, weight in zip(self.optimizer.param_groups, self.weights.values(), strict=False):
            weight.grad = technique.gradient(weight.grad)
            group["lr"] = technique.rate(weight.detach(), weight.grad, technique.lr)
        bases = [
            kept_share(self.optimizer, group) * weight.detach()
            for group, weight in zip(
                self.optimizer.param_groups, self.weights.values(), strict=False
            )
        ]
        self.optimizer.step()
        with torch.no_grad():
            for weight, base in zip(self.weights.values(), bases, strict=True):
                weight.copy_(base + technique.update(weight - base))
        return any(group["lr"] < technique.lr for group in self.optimizer.param_groups)


def flatten(parameters: dict[str, Tensor]) -> Tensor:
    """Concatenate parameters as a float64 vector on the CPU, in the order of their names."""
    vectors = [parameters[name].detach().cpu().double().flatten() for name in sorted(parameters)]
    return torch.cat(vectors)


def check_movement(
    training: Training, *, step: Callable[[], object] | None = None, tolerance: float = 3e-4
) -> str:
    """Train for some steps, and compare the movement of the weights with the equations.

    Args:
        training: Training to run.
        step: Runs a step; `training.step` by default.
        tolerance: Largest relative error.
    """
    reference, start = Reference(training), flatten(training.parameters())
    with full_precision():
        for _ in range(training.technique.steps):
            (step or training.step)()
    chosen = [reference.step() for _ in range(training.technique.steps)]
    if "olr" in training.technique.attached:
        require(any(chosen), "an optimal rate below the base rate", "none")
    got = flatten(training.parameters()) - start
    expected = flatten(reference.parameters) - start
    return f"error {check_error('movement of the weights', got, expected, tolerance)}"


def check_steps(technique: Technique, kind: str, device: torch.device) -> str:
    """Compare steps of one optimizer."""
    return check_movement(Training(technique, kind, device))


def check_channels_last(technique: Technique, device: torch.device) -> str:
    """Compare steps with channels last."""
    return check_movement(
        Training(technique, "Adam, fused", device, memory_format=torch.channels_last)
    )


def check_scaler(technique: Technique, device: torch.device) -> str:
    """Check that an overflow changes the scale only, and compare the steps after it."""
    training = Training(technique, "Adam, fused", device)
    scaler = torch.amp.GradScaler(device.type, init_scale=1024.0)
    before = flatten(training.parameters())
    scaled_step(training, scaler, overflow=True)
    change = relative_error(flatten(training.parameters()), before)
    require(change == 0, "the same weights after an overflow", f"a change of {change:.1e}")
    require(scaler.get_scale() == 512, "half of the scale, 512", scaler.get_scale())
    return check_movement(training, step=partial(scaled_step, training, scaler))


def scaled_step(
    training: Training, scaler: torch.amp.GradScaler, *, overflow: bool = False
) -> None:
    """Run a step with a GradScaler, optionally with an infinite gradient."""
    training.optimizer.zero_grad()
    scaler.scale(training.loss()).backward()
    if overflow:
        training.pre_svd[PRE_SVD[0]].grad[0, 0] = torch.inf
    scaler.unscale_(training.optimizer)
    scaler.step(training.optimizer)
    scaler.update()


def check_bfloat16(technique: Technique, device: torch.device) -> str:
    """Compare a step on weights and gradients in bfloat16."""
    training = Training(technique, "Adam, fused", device, dtype=BF16)
    reference = Reference(training)
    for name, parameter in training.parameters().items():
        weight, noise = parameter.detach(), torch.randn_like(parameter)
        parameter.grad = 20 * (weight / weight.norm() + noise / noise.norm())
        reference.parameters[name].grad = parameter.grad.cpu().double()
    training.optimizer.step()
    reference.descend()
    got, expected = flatten(training.parameters()), flatten(reference.parameters)
    return f"error {check_error('weights', got, expected, torch.finfo(BF16).eps)}"


def check_autocast(technique: Technique, device: torch.device) -> str:
    """Compare steps under autocast to bfloat16."""
    training = Training(technique, "SGD, fused", device)

    def step() -> None:
        training.optimizer.zero_grad()
        with torch.autocast(device.type, dtype=BF16):
            loss = training.loss()
        loss.backward()
        training.optimizer.step()

    return check_movement(training, step=step, tolerance=0.05)


# Waiting


def check_waiting(technique: Technique, kind: str, device: torch.device) -> str:
    """Run a step of an optimizer without host synchronisation."""
    return step_without_waiting(Training(technique, kind, device).step, device)


def check_scaler_waiting(technique: Technique, device: torch.device) -> str:
    """Run a step with a GradScaler without host synchronisation."""
    training = Training(technique, "Adam, fused", device)
    scaler = torch.amp.GradScaler(device.type, init_scale=1024.0)
    return step_without_waiting(partial(scaled_step, training, scaler), device)


def step_without_waiting(step: Callable[[], object], device: torch.device) -> str:
    """Run a step without host synchronisation, after two that create library handles."""
    for _ in range(2):
        step()
    with refusing_to_wait(device):
        step()
    return ""


def check_watch(device: torch.device) -> str:
    """Check that reading a value is refused, so that the checks above can fail."""
    number = torch.ones((), device=device)
    try:
        with refusing_to_wait(device):
            number.item()
    except RuntimeError:
        return ""
    require(False, "an error where a value is read", "none")
    return ""
