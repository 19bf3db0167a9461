"""Between the arrays of official files and the images of a data set."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def channels_first(images: NDArray[np.uint8]) -> Tensor:
    """Images `(N, H, W, C)` as a tensor `(N, C, H, W)`, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def shrink(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An image `(H, W)` or `(H, W, 3)` at another size, as disentanglement_lib resizes."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
