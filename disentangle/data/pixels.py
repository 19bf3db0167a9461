"""Conversions from the pixels of files to the images of models."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def scale_pixels(pixels: Tensor) -> Tensor:
    """Scale uint8 pixels, 0 … 255, to float32 images, -1 … 1.

    Args:
        pixels: uint8, of any shape.

    Raises:
        ValueError: If the dtype is another.

    Examples:
        >>> scale_pixels(torch.tensor([0, 255], dtype=torch.uint8))
        tensor([-1.,  1.])
    """
    if pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8, got {pixels.dtype}")
    return pixels.float().div_(127.5).sub_(1)


def channels_first(images: NDArray[np.uint8]) -> Tensor:
    """Return images `(N, H, W, C)` as a tensor `(N, C, H, W)`, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def shrink(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize an image `(H, W)` or `(H, W, 3)`, as disentanglement_lib does."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
