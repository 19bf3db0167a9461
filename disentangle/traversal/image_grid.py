"""Unlabelled grids of images."""

import math

from PIL import Image
from torch import Tensor

from disentangle.traversal.layout import GAP, above, beside
from disentangle.traversal.pixels import to_pixels


def image_grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Arrange images in an unlabelled grid, row by row.

    Args:
        images: Shape `(N, C, H, W)` in `[-1, 1]`, with one or three channels.
        columns: Images per row; by default, the grid has about as many columns as rows.

    Raises:
        ValueError: If the images have another shape or are non-finite, or `columns` is below 1.

    Examples:
        >>> import torch
        >>> image_grid(torch.zeros(6, 3, 32, 32)).size
        (100, 66)
    """
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (N, C, H, W), got {tuple(images.shape)}")
    pixels = to_pixels(images)
    columns = math.ceil(math.sqrt(len(pixels))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    tiles = [Image.fromarray(image) for image in pixels]
    rows = [beside(tiles[i : i + columns], GAP) for i in range(0, len(tiles), columns)]
    return above(rows, GAP)
