"""Evaluation mode and device of networks."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn


@contextmanager
def evaluation_mode(*networks: nn.Module) -> Iterator[None]:
    """Every part of the networks in evaluation mode while inside, as it was before afterwards.

    In training mode a mere look can change a network: spectral norm makes a power iteration, and
    normalisations move their running averages.

    Examples:
        >>> network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with evaluation_mode(network):
        ...     [part.training for part in network]
        [False, False]
        >>> [part.training for part in network]
        [True, False]
    """
    modes = [(part, part.training) for network in networks for part in network.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, training in modes:
            part.training = training


def device_of(network: object) -> torch.device:
    """Return the `device` of a network, else that of its first parameter or buffer, else the CPU.

    Examples:
        >>> device_of(nn.Linear(1, 1)), device_of(lambda z: z)
        (device(type='cpu'), device(type='cpu'))
    """
    device = getattr(network, "device", None)
    if isinstance(device, torch.device | str):
        return torch.device(device)
    if isinstance(network, nn.Module):
        for tensor in chain(network.parameters(), network.buffers()):
            return tensor.device
    return torch.device("cpu")
