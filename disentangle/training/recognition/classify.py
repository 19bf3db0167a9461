"""What a classifier says of a whole data set."""

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.data import ImageData, scale_pixels
from disentangle.data.base import Integers
from disentangle.models.modes import evaluation_mode

BATCH = 250  # images at once


@torch.no_grad()
def classify_images(model: ModelMixin, data: ImageData, indices: Integers) -> Tensor:
    """The logits, float32 `(N, classes)`, of the images of a data set at some places `(N,)`."""
    with evaluation_mode(model):
        return model(scale_pixels(data.__getitems__(indices).to(model.device))).float()


@torch.no_grad()
def classify(model: ModelMixin, data: ImageData, accelerator: Accelerator) -> Tensor:
    """The logits of all images, known to every process; each computes a part.

    Args:
        model: On the device of the accelerator.
        data: `N` images.
        accelerator: Knows the processes and the precision.

    Returns:
        Float32 `(N, classes)`, on the host.
    """
    parts = np.split(np.arange(len(data)), range(BATCH, len(data), BATCH))
    whole = torch.zeros(len(data), model.config.classes, device=model.device)
    with accelerator.autocast():
        for indices in parts[accelerator.process_index :: accelerator.num_processes]:
            whole[indices] = classify_images(model, data, indices)
    return accelerator.reduce(whole, "sum").cpu()  # each row is zero but in one process
