"""Logits of a classifier on a whole data set."""

from contextlib import closing

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor, distributed

from disentangle.data import ImageData, scale_pixels
from disentangle.data.workers import read_batches
from disentangle.models.evaluation_mode import evaluation_mode


@torch.no_grad()
def classify_images(model: ModelMixin, pixels: Tensor) -> Tensor:
    """The logits, float32 `(N, classes)`, of images uint8 `(N, C, H, W)`."""
    with evaluation_mode(model):
        return model(scale_pixels(pixels.to(model.device, non_blocking=True))).float()


@torch.no_grad()
def classify(
    model: ModelMixin,
    data: ImageData,
    accelerator: Accelerator,
    *,
    batch_size: int,
    workers: int = 0,
) -> Tensor:
    """The logits of all images, known to every process; each computes a part.

    Of the running statistics, which each process has measured on its own images, those of the first
    count, in every process; it is the model that the first one writes.

    Args:
        model: On the device of the accelerator.
        data: `N` images.
        accelerator: Knows the processes and the precision.
        batch_size: Images that a process looks at at once.
        workers: Processes that decode, for each process.

    Returns:
        Float32 `(N, classes)`, on the host.
    """
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
    parts = np.split(np.arange(len(data)), range(batch_size, len(data), batch_size))
    own = parts[accelerator.process_index :: accelerator.num_processes]
    decoded = read_batches(data, [part.tolist() for part in own], workers)
    shape = len(data), model.config.classes
    whole = torch.zeros(shape, dtype=torch.float32, device=model.device)
    with accelerator.autocast(), closing(decoded):
        for indices, pixels in zip(own, decoded, strict=True):
            whole[indices] = classify_images(model, pixels)
    return accelerator.reduce(whole, "sum").cpu()  # each row is zero but in one process
