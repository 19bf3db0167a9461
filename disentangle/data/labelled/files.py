"""Images in files of their own, each of one class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from disentangle.data.base import Integers
from disentangle.data.images.decoding import Decoder
from disentangle.data.images.files import ImageFiles
from disentangle.data.labelled.base import LabelledImages


class LabelledFiles(LabelledImages):
    """Files of images with their classes, decoded when they are asked for.

    Args:
        paths: The files.
        labels: The class of each file, integers `(N,)`.
        class_names: The name of each class.
        decoder: Decoder of the files.
        folder: Their folder, for messages.
        check: Decode every file now. If not, a corrupt one is an error when it is asked for.
        on_corrupt: Action for a file that cannot be decoded: `error` raises, `skip` leaves it out.

    Attributes:
        paths: The file of each image.
        skipped: The files that were left out.

    Raises:
        ValueError: If an image is corrupt (or all are, with `skip`), or a label is out of range.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: ArrayLike,
        class_names: Sequence[str],
        decoder: Decoder,
        *,
        folder: Path,
        check: bool,
        on_corrupt: str,
    ) -> None:
        self._files = ImageFiles(paths, decoder, folder=folder, check=check, on_corrupt=on_corrupt)
        self.paths, self.skipped = self._files.paths, self._files.skipped
        super().__init__(
            image_size=decoder.image_size,
            image_channels=decoder.image_channels,
            labels=np.asarray(labels)[self._files.kept],
            class_names=class_names,
        )

    def _images(self, indices: Integers) -> Tensor:
        return self._files.load(indices)
