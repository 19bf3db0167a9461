"""Some of the images of a data set with classes."""

import numpy as np
from torch import Tensor

from disentangle.data.base import Integers, check_indices
from disentangle.data.labelled.base import LabelledImages


class LabelledSubset(LabelledImages):
    """Some of the images of a data set with classes, in the order that is given.

    Args:
        data: The whole.
        indices: Indices of the images, `(N,)`.

    Raises:
        ValueError: If an index is not an integer, or not between 0 and `len(data) - 1`.

    Examples:
        >>> from disentangle.data.labelled.digits import Digits
        >>> subset = LabelledSubset(Digits(), [5, 3])
        >>> len(subset), subset.labels.tolist() == Digits().labels[[5, 3]].tolist()
        (2, True)
    """

    def __init__(self, data: LabelledImages, indices: Integers) -> None:
        self._data, self._places = data, check_indices(indices, len(data))
        self.paths = data.paths
        super().__init__(
            image_size=data.image_size,
            image_channels=data.image_channels,
            labels=data.labels[self._places],
            class_names=data.class_names,
        )

    def _images(self, indices: Integers) -> Tensor:
        return self._data.__getitems__(self._places[indices])


def hold_out(data: LabelledImages, fraction: float) -> tuple[LabelledSubset, LabelledSubset]:
    """Split a data set in two, each class in about the same ratio; always in the same way.

    Args:
        data: The whole.
        fraction: Fraction for the second part, between 0 and 1.

    Raises:
        ValueError: If a part would have fewer images than there are classes, or a class has a
            single image.

    Examples:
        >>> from disentangle.data.labelled.digits import Digits
        >>> rest, held_out = hold_out(Digits(), 0.1)
        >>> len(rest), len(held_out)
        (1293, 144)
    """
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    if counts.min() < 2:
        name = data.class_names[counts.argmin()]
        raise ValueError(f"every class needs 2 images to be divided, {name!r} has {counts.min()}")
    from sklearn.model_selection import train_test_split  # late, since it takes a moment

    parts = train_test_split(
        np.arange(len(data)), test_size=fraction, random_state=0, stratify=data.labels
    )
    rest, held_out = (LabelledSubset(data, np.sort(part)) for part in parts)
    return rest, held_out
