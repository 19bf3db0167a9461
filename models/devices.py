"""Where a network computes."""

from itertools import chain

import torch
from torch import nn


def device_of(network: object) -> torch.device:
    """What the network says by its `device`, or where its first parameter or buffer is, or the CPU.

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
