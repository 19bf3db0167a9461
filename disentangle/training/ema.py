"""The running average of a network's weights and buffers."""

import copy

import torch
from torch import Tensor, nn

from disentangle.config import RunConfig
from disentangle.distributed.dtensor import gather
from disentangle.distributed.fsdp import whole_model


class RunningAverage(nn.Module):
    """`w̄ ← d w̄ + (1 − d) w` for every weight and floating-point buffer; other buffers are copied.

    Unlike `torch.optim.swa_utils.AveragedModel`, whose count of updates is a tensor in the host's
    memory, an update waits for nothing on a GPU.

    Args:
        network: What is averaged; the average starts as a copy of it. If FSDP2 divides it over the
            processes, each of them has the whole average and must take part in every update.
        decay: The decay `d` of an update, in `[0, 1)`.

    Attributes:
        module: The network with the averaged weights, in evaluation mode.

    Raises:
        ValueError: If `decay` is not in `[0, 1)`.

    Examples:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> average = RunningAverage(network, decay=0.75)
        >>> with torch.no_grad():
        ...     network.weight += 4
        >>> before = average.module.weight.item()
        >>> average.update(network, first=False)
        >>> round(average.module.weight.item() - before, 5)
        1.0
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.module = copy.deepcopy(whole_model(network)).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, *, first: bool) -> None:
        """Takes in the weights after a step.

        Args:
            network: The one that is averaged.
            first: Whether it is the first step, whose weights the average takes as they are.
        """
        old, new = _tensors(self.module), [gather(tensor) for tensor in _tensors(network)]
        averaged = [i for i, tensor in enumerate(old) if tensor.is_floating_point() and not first]
        copied = sorted(set(range(len(old))) - set(averaged))
        if averaged:
            torch._foreach_lerp_(
                [old[i] for i in averaged], [new[i] for i in averaged], 1 - self.decay
            )
        for i in copied:
            old[i].copy_(new[i])


def build_average(model: nn.Module, run: RunConfig) -> RunningAverage | None:
    """The running average of the weights and buffers, or `None` if the run keeps none."""
    half_life = run.training.ema_half_life
    if not half_life:
        return None
    return RunningAverage(model, decay=0.5 ** (run.training.batch_size / half_life))


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
