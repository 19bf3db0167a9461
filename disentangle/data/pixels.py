"""Between the pixels of files and the images of models."""

import torch
from torch import Tensor


def scale_pixels(pixels: Tensor) -> Tensor:
    """Pixels in uint8, 0 … 255, as images in float32, -1 … 1.

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
