"""Base class of data sets with classes: the class of each image."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from disentangle.data.base import ImageData


class LabelledImages(ImageData):
    """Images of which each belongs to one class.

    Args:
        image_size: Height and width of an image, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        labels: The class of each image, integers `(N,)`.
        class_names: The name of each class.

    Attributes:
        labels: The class of each image, int64 `(N,)`, from 0 to `len(class_names) - 1`.
        class_names: The name of each class.

    Raises:
        ValueError: If the labels are not integers `(N,)` in that range.
    """

    def __init__(
        self,
        *,
        image_size: int,
        image_channels: int,
        labels: ArrayLike,
        class_names: Sequence[str],
    ) -> None:
        super().__init__(image_size=image_size, image_channels=image_channels)
        array = np.asarray(labels)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(f"labels must be integers (N,), got {array.dtype} {array.shape}")
        wrong = array[(array < 0) | (array >= len(class_names))]
        if wrong.size:
            raise ValueError(f"labels must be from 0 to {len(class_names) - 1}, got {wrong[0]}")
        self.labels = array.astype(np.int64)
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)
