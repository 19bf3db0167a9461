"""Losses of the joint batch of all processes that are not means over samples."""

import torch
from accelerate import Accelerator
from torch import Tensor


def join_processes(accelerator: Accelerator, values: Tensor) -> Tensor:
    """Concatenate the values of all processes in order, `(P·N, …)`.

    Gradients flow into the values of this process only.

    Args:
        accelerator: Accelerator of the run.
        values: Values of this process, `(N, …)`, with the same `N` in every process.
    """
    if accelerator.num_processes == 1:
        return values
    start = accelerator.process_index * len(values)
    gathered = accelerator.gather(values.detach())
    return torch.cat([gathered[:start], values, gathered[start + len(values) :]])


def share_loss(accelerator: Accelerator, loss: Tensor) -> Tensor:
    """Multiply the gradient of a loss of the joint batch by the number of processes.

    Each process has the part of the gradient that flows through its own values. The full gradient
    is their sum, but a distributed wrapper takes their mean. The value of the loss stays the same.
    """
    processes = accelerator.num_processes
    return loss if processes == 1 else processes * loss - (processes - 1) * loss.detach()
