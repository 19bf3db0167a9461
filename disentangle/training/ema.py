"""Exponential moving average (EMA) of a network's weights and buffers."""

import copy

import torch
from torch import Tensor, nn

from disentangle.config import RunConfig
from disentangle.distributed.dtensor import gather
from disentangle.distributed.fsdp import whole_model


class RunningAverage(nn.Module):
    """Exponential moving average `w̄ ← d w̄ + (1 − d) w` of weights and floating-point buffers.

    Other buffers are copied. Unlike `torch.optim.swa_utils.AveragedModel`, whose count of updates
    is a tensor in the host's memory, an update does not synchronise with a GPU.

    Args:
        network: Network to average; the average starts as a copy of it. If FSDP2 shards it, every
            process has the full average and must take part in every update.
        decay: Decay `d` of an update, in `[0, 1)`.

    Attributes:
        module: Copy of the network with the averaged weights, in evaluation mode.

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
        """Update the average with the weights after a step.

        Args:
            network: Network to average.
            first: Copy the weights instead, as after the first step.
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
    """Return the moving average of a model, or None if the run keeps none."""
    half_life = run.training.ema_half_life
    if not half_life:
        return None
    return RunningAverage(model, decay=0.5 ** (run.training.batch_size / half_life))


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
