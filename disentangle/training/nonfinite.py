"""Skip optimizer steps with NaN or infinite gradients, and report where they began."""

import math
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from disentangle.distributed.dtensor import gather

# A GradScaler, which starts at 2¹⁶, gets here after 26 overflows in a row: no scale helps.
SMALLEST_SCALE = 2.0**-10
NAMED = 3  # most names in a message


def carry_into_gradient(loss: Tensor) -> Tensor:
    """Make the gradient of a loss NaN if the loss is NaN or infinite.

    The average of the gradients then tells every process of a non-finite loss in one of them.
    A finite loss and its gradient are unchanged.

    Examples:
        >>> w = torch.tensor([-1.0, 4.0], requires_grad=True)
        >>> carry_into_gradient(w.log()[0]).backward()  # its own gradient is −1
        >>> w.grad
        tensor([nan, 0.])
    """
    return loss * (1 + 0 * loss.detach())


class StepGuard:
    """Guard that skips and counts optimizer steps with non-finite gradients.

    A skipped step leaves the parameters, the optimizer's state and the buffers of the network as
    they were before the step. The decision is made on the device, without synchronisation until
    `firsts`, `streak` and `skipped` are read.

    A gradient counts as finite if its norm is: an element of 1e20 in float32 does not, as its
    square overflows in Adam as well.

    Args:
        network: Network on the training device. Call `keep_buffers` before each step, and change
            its buffers in place only.
        optimizer: Optimizer of its parameters, with `fused=True`, whose kernels can skip a step.

    Attributes:
        names: Names of the trained parameters.
        firsts: First step at which the gradient of each was non-finite, float64 `(P,)`; infinity
            if it always was finite.
        streak: Number of steps skipped in a row up to now, 0-d.
        skipped: Number of steps skipped since `forget`, 0-d.
    """

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.network, self.optimizer = network, optimizer
        trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.names, self.parameters = list(trained), list(trained.values())
        device = self.parameters[0].device
        # norm of a parameter without a gradient
        self.zero = torch.zeros((), device=device)
        self.streak = torch.zeros((), dtype=torch.float64, device=device)
        self.buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self.kept = [torch.empty_like(buffer) for buffer in self.buffers]
        self.forget()

    def forget(self) -> None:
        """Reset `firsts` and `skipped`."""
        self.firsts = torch.full_like(self.streak, math.inf).repeat(len(self.names))
        self.skipped = torch.zeros_like(self.streak)

    @torch.no_grad()
    def keep_buffers(self) -> None:
        """Copy the buffers, before a forward pass of a step changes them."""
        if self.buffers:
            torch._foreach_copy_(self.kept, self.buffers)

    @torch.no_grad()
    def inspect(self, step: int, scaler: torch.amp.GradScaler | None = None) -> None:
        """Check the gradients, before the optimizer's step and before NOG.

        Args:
            step: Number of the step.
            scaler: Gradient scaler, which has unscaled the gradients. It skips steps itself, and
                only those that no scale would make finite are counted.
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
        """Return the norms of the gradients, `(P,)`."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norms = map(gather, torch._foreach_norm(gradients))
        return torch.stack([self.zero if p.grad is None else next(norms) for p in self.parameters])


def describe(firsts: Mapping[str, float]) -> str:
    """Describe in one line what was non-finite first.

    Args:
        firsts: First step at which each term or gradient was non-finite, by name; at least one.

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
    """Raise unless all weights and buffers of some models are finite.

    Every process must take part. This synchronises with the device, so call it only before the
    models are written.

    Args:
        accelerator: Accelerator of the run.
        models: Models by name.
        step: Number of optimizer steps made.

    Raises:
        FloatingPointError: If one is non-finite in any process; raised in every process.
    """
    for model, network in models.items():
        tensors = {name: x for name, x in network.state_dict().items() if x.is_floating_point()}
        wrong = torch.stack(torch._foreach_norm(list(tensors.values()))).isfinite().logical_not()
        counts = accelerator.reduce(wrong.double(), "sum").tolist()
        names = [name for name, count in zip(tensors, counts, strict=True) if count]
        if names:
            raise FloatingPointError(f"{names[0]} of {model} is not finite after step {step}")
