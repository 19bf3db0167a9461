"""Losses of the joint batch of all processes, where they are no means over samples."""

import torch
from accelerate import Accelerator
from torch import Tensor


def join_processes(accelerator: Accelerator, values: Tensor) -> Tensor:
    """The values of all processes in order, `(P·N, …)`; gradients flow into this process's only.

    Args:
        accelerator: Knows the processes.
        values: Of this process, `(N, …)`; as many in every process.
    """
    if accelerator.num_processes == 1:
        return values
    start = accelerator.process_index * len(values)
    gathered = accelerator.gather(values.detach())
    return torch.cat([gathered[:start], values, gathered[start + len(values) :]])


def share_loss(accelerator: Accelerator, loss: Tensor) -> Tensor:
    """A loss that every process has of the joint batch, ready for gradients to be averaged.

    Each process has the part of the gradient that flows through its own values. The whole is their
    sum, but a distributed wrapper takes their mean: so the gradient is multiplied by the number of
    processes, and the value stays.
    """
    processes = accelerator.num_processes
    return loss if processes == 1 else processes * loss - (processes - 1) * loss.detach()
