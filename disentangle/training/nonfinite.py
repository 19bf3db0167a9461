"""Numbers that are not finite: steps that are not made for them, and what is said of them."""

import math
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from disentangle.distributed.dtensor import gather

# From its first scale, 2¹⁶, a GradScaler is here after 26 overflows in a row: no scale helps.
SMALLEST_SCALE = 2.0**-10
NAMED = 3  # in a message


def carry_into_gradient(loss: Tensor) -> Tensor:
    """The loss, whose gradient is not a number if the loss is infinite or none.

    So the average of the gradients tells every process of a loss that one of them has seen. To a
    finite loss and its gradient nothing is done.

    Examples:
        >>> w = torch.tensor([-1.0, 4.0], requires_grad=True)
        >>> carry_into_gradient(w.log()[0]).backward()  # its own gradient is −1
        >>> w.grad
        tensor([nan, 0.])
    """
    return loss * (1 + 0 * loss.detach())


class StepGuard:
    """Keeps an optimizer from steps on gradients that are not finite, and takes note of them.

    A step that is not made leaves the parameters, the optimizer's state and the buffers of the
    network as they were before the step. Whether it is made is decided on the device; nothing waits
    for a value there until `firsts`, `streak` and `skipped` are read.

    A gradient is finite if its norm is: one of 1e20 in float32 is not, nor does Adam bear its
    square.

    Args:
        network: On the training device. Before each step its buffers are to be kept by
            `keep_buffers`; they may be changed in place only.
        optimizer: Holds its parameters; one with `fused=True`, whose kernels know of skipped steps.

    Attributes:
        names: The parameters that are trained.
        firsts: The first step at which the gradient of each was not finite, float64 `(P,)`;
            infinity if it always was.
        streak: How many of the last steps, in a row, were not made, 0-d.
        skipped: How many steps were not made since `forget`, 0-d.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(trained), list(trained.values())
        device = self.parameters[0].device
        # One that has no gradient is as one with zeros.
        self.zero = torch.zeros((), device=device)
        self.streak = torch.zeros((), dtype=torch.float64, device=device)
        self.buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self.kept = [torch.empty_like(buffer) for buffer in self.buffers]
        self.forget()

    def forget(self) -> None:
        """Makes `firsts` and `skipped` those of the steps to come."""
        self.firsts = torch.full_like(self.streak, math.inf).repeat(len(self.names))
        self.skipped = torch.zeros_like(self.streak)

    @torch.no_grad()
    def keep_buffers(self) -> None:
        """Copies the buffers, before a forward pass of a step changes them."""
        if self.buffers:
            torch._foreach_copy_(self.kept, self.buffers)

    @torch.no_grad()
    def inspect(self, step: int, scaler: torch.amp.GradScaler | None = None) -> None:
        """Looks at the gradients, before the optimizer's step and before NOG.

        Args:
            step: The number of the step.
            scaler: That of the optimizer, which has unscaled the gradients. It then decides whether
                the step is made, and only what it cannot mend by its scale is taken note of.
        """
        finite = self._norms().isfinite()
        found = finite.all().logical_not()
        if scaler is None:
            self.optimizer.found_inf = found.float()  # type: ignore[attr-defined]
            noted = found
        else:
            scale = scaler._get_scale_async()
            assert scale is not None  # it has scaled the loss
            noted = found & (scale < SMALLEST_SCALE)
        self.firsts = torch.where(finite | ~noted, self.firsts, self.firsts.clamp(max=step))
        self.skipped += noted
        self.streak.add_(noted).mul_(noted)
        for buffer, kept in zip(self.buffers, self.kept, strict=True):
            torch.where(found, kept, buffer, out=buffer)

    def _norms(self) -> Tensor:
        """Of the gradient of each parameter, `(P,)`."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norms = map(gather, torch._foreach_norm(gradients))
        return torch.stack([self.zero if p.grad is None else next(norms) for p in self.parameters])


def describe(firsts: Mapping[str, float]) -> str:
    """What was not finite first, in one line.

    Args:
        firsts: The first step at which each thing was not finite, by name; at least one.

    Examples:
        >>> describe({"loss": 7, "loss/divergence": 8, "the gradient of 'fc.weight'": 7})
        "not finite, first at step 7: loss, the gradient of 'fc.weight'"
    """
    step = min(firsts.values())
    names = [name for name, first in firsts.items() if first == step]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"not finite, first at step {step:.0f}: {', '.join(names[:NAMED])}{more}"


@torch.no_grad()
def check_weights(accelerator: Accelerator, models: Mapping[str, nn.Module], step: int) -> None:
    """Whether all weights and buffers of some models are finite, in every process.

    Waits for the device: for where they are to be written.

    Args:
        accelerator: Knows the processes, each of which takes part.
        models: By name.
        step: After which they are.

    Raises:
        FloatingPointError: If one is not, in every process.
    """
    for model, network in models.items():
        tensors = {name: x for name, x in network.state_dict().items() if x.is_floating_point()}
        wrong = torch.stack(torch._foreach_norm(list(tensors.values()))).isfinite().logical_not()
        counts = accelerator.reduce(wrong.double(), "sum").tolist()
        names = [name for name, count in zip(tensors, counts, strict=True) if count]
        if names:
            raise FloatingPointError(f"{names[0]} of {model} is not finite after step {step}")
