"""The handwritten digits that come with scikit-learn."""

from typing import Literal

import numpy as np
import torch

from disentangle.data.labelled.array import LabelledArray

SPLITS = ("train", "test")
LEVELS = 16  # a stored pixel counts the dark ones of a 4 × 4 square of the scan
TEST_FRACTION, SEED = 0.2, 0


class Digits(LabelledArray):
    """1797 handwritten digits, grey, 8 × 8, which come with scikit-learn: no file is needed.

    Their 17 grey levels are scaled to 0 … 255. There is no official split of them; here, a fixed
    fifth of each class is for the test.

    Source: the test set of Optical Recognition of Handwritten Digits by Alpaydin and Kaynak, 1998,
    https://doi.org/10.24432/C50P49.

    Args:
        split: Split of the images: `train` or `test`.
        image_size: Height and width to bring the images to, in pixels.

    Raises:
        ValueError: If there is no such split, or the size is no positive integer.

    Examples:
        >>> digits = Digits(split="test")
        >>> len(digits), digits[0].shape, digits.class_names[:3]
        (360, torch.Size([1, 8, 8]), ('0', '1', '2'))
    """

    def __init__(self, *, split: Literal["train", "test"] = "train", image_size: int = 8) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        # Late, since it slows every command down.
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        stored, labels = load_digits(return_X_y=True)
        places = train_test_split(
            np.arange(len(labels)), test_size=TEST_FRACTION, random_state=SEED, stratify=labels
        )[SPLITS.index(split)]
        places.sort()
        pixels = np.rint(stored[places] * 255 / LEVELS).astype(np.uint8)
        super().__init__(
            torch.from_numpy(pixels).reshape(-1, 1, 8, 8),  # (N, 64) → (N, 1, 8, 8)
            labels[places],
            [str(digit) for digit in range(10)],
            image_size=image_size,
        )
