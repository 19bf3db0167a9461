"""Small images in memory, each of one class."""

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from disentangle.data.base import Integers, checked_integer
from disentangle.data.labelled.base import LabelledImages
from disentangle.data.pixels import shrink


class LabelledArray(LabelledImages):
    """Images in memory with their classes, resized (Lanczos) when they are asked for.

    Args:
        pixels: The images, uint8 `(N, C, H, H)`.
        labels: The class of each image, integers `(N,)`.
        class_names: The name of each class.
        image_size: Height and width to bring the images to, in pixels.

    Raises:
        ValueError: If a label is out of range, or the size no positive integer.

    Examples:
        >>> squares = torch.zeros((2, 1, 8, 8), dtype=torch.uint8)
        >>> data = LabelledArray(squares, [0, 1], ["cat", "dog"], image_size=16)
        >>> data[1].shape, data.labels
        (torch.Size([1, 16, 16]), array([0, 1]))
    """

    def __init__(
        self, pixels: Tensor, labels: ArrayLike, class_names: Sequence[str], *, image_size: int
    ) -> None:
        super().__init__(
            image_size=checked_integer("image_size", image_size, 1),
            image_channels=pixels.shape[1],
            labels=labels,
            class_names=class_names,
        )
        # A tensor, since torch shares the memory of tensors with spawned workers.
        self._pixels = pixels

    def _images(self, indices: Integers) -> Tensor:
        stored = self._pixels[torch.from_numpy(indices)]  # (N, C, H, H)
        size = self.image_size
        if stored.shape[-1] == size:
            return stored
        images = torch.empty((*stored.shape[:2], size, size), dtype=torch.uint8)
        for image, pixels in zip(images.flatten(0, 1), stored.flatten(0, 1), strict=True):
            image.copy_(torch.from_numpy(shrink(pixels.numpy(), size).copy()))  # of one channel
        return images
