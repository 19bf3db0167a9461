"""Base classes of data sets: batches of images by index, and the factors behind them."""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

Integers = NDArray[np.int64]


class ImageData(Dataset[Tensor], ABC):
    """Images of one size, fetched by index, a whole batch at a time.

    `data[i]` is one image, uint8 `(C, H, W)`. `data.__getitems__(indices)` is a batch, uint8
    `(N, C, H, W)`, what a `DataLoader` asks for; its `collate_fn` has nothing left to do.

    Args:
        image_size: Height and width of an image, in pixels.
        image_channels: 1 (grey) or 3 (RGB).

    Attributes:
        image_size: Height and width of an image, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        paths: Files that the images are read from; empty if they are rendered.
        skipped: Files, or names, of the images that were left out since they cannot be decoded.
        left_out: A phrase for each other kind of file or folder that was left out.
    """

    paths: Sequence[Path] = ()
    skipped: Sequence[Path | str] = ()
    left_out: Sequence[str] = ()

    def __init__(self, *, image_size: int, image_channels: int) -> None:
        self.image_size = image_size
        self.image_channels = image_channels

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def _images(self, indices: Integers) -> Tensor:
        """Return the images uint8 `(N, C, H, W)` of indices `(N,)` that are known to be valid."""

    def __getitems__(self, indices: ArrayLike) -> Tensor:
        """Return the images uint8 `(N, C, H, W)` of integer indices `(N,)`.

        Raises:
            ValueError: If an index is not an integer, or not between 0 and `len(self) - 1`.
        """
        return self._images(check_indices(indices, len(self)))

    def __getitem__(self, index: int) -> Tensor:
        """Return the image uint8 `(C, H, W)` of an index; errors as in `__getitems__`."""
        return self.__getitems__([index])[0]

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over all images in order."""
        return (self[index] for index in range(len(self)))


class GroundTruthData(ImageData):
    """Images of every combination of known factors, each combination once.

    Combinations are in the official order of the field's data sets: the last factor varies
    fastest. Factors are integers `(N, F)`, each from 0 up to its size.

    Source: the interface of Locatello et al., 2019, https://arxiv.org/abs/1811.12359.

    Args:
        image_size: Height and width of an image, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        factor_names: Names of the F factors.
        factor_sizes: Number of values of each factor.

    Attributes:
        factor_names: Names of the F factors.
        factor_sizes: Number of values of each factor.
    """

    def __init__(
        self,
        *,
        image_size: int,
        image_channels: int,
        factor_names: tuple[str, ...],
        factor_sizes: tuple[int, ...],
    ) -> None:
        super().__init__(image_size=image_size, image_channels=image_channels)
        self.factor_names = factor_names
        self.factor_sizes = factor_sizes

    def __len__(self) -> int:
        """Number of combinations."""
        return math.prod(self.factor_sizes)

    def sample_factors(self, n: int, generator: np.random.Generator) -> Integers:
        """Draw factors int64 `(n, F)`, independent and uniform.

        Raises:
            ValueError: If `n` is negative.
        """
        if n < 0:
            raise ValueError(f"n must not be negative, got {n}")
        return generator.integers(0, self.factor_sizes, size=(n, len(self.factor_sizes)))

    def render(self, factors: ArrayLike) -> Tensor:
        """Return the images uint8 `(N, C, H, W)` of factors `(N, F)`; errors as in `index`."""
        return self._images(self.index(factors))

    def index(self, factors: ArrayLike) -> Integers:
        """Return the index int64 `(N,)` of each row of factors `(N, F)`.

        Raises:
            ValueError: If the shape is another, or a factor is no integer or out of its range.
        """
        columns = _checked_factors(factors, self.factor_names, self.factor_sizes).T
        return np.ravel_multi_index(tuple(columns), self.factor_sizes).astype(np.int64, copy=False)

    def factors(self, indices: ArrayLike) -> Integers:
        """Return the factors int64 `(N, F)` of indices `(N,)`, the inverse of `index`.

        Raises:
            ValueError: If an index is not an integer, or not between 0 and `len(self) - 1`.
        """
        checked = check_indices(indices, len(self))
        return np.stack(np.unravel_index(checked, self.factor_sizes), axis=1).astype(np.int64)


def checked_integer(name: str, value: int, minimum: int) -> int:
    """Return the value if it is an integer of at least `minimum`.

    Raises:
        ValueError: If it is not.
    """
    if not _is_integer(value) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")
    return operator.index(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_indices(indices: ArrayLike, length: int) -> Integers:
    """Check indices into a data set of some length, and return them as an array `(N,)`.

    Raises:
        ValueError: If they are not a list of integers, or one is out of range.
    """
    array = _checked_integers(indices, "indices")
    if array.ndim != 1:
        raise ValueError(f"indices must have shape (N,), got {array.shape}")
    if array.size and not 0 <= array.min() <= array.max() < length:
        wrong = array[(array < 0) | (array >= length)][0]
        raise ValueError(f"indices must be between 0 and {length - 1}, got {wrong}")
    return array.astype(np.int64, copy=False)


def _checked_factors(
    factors: ArrayLike, names: tuple[str, ...], sizes: tuple[int, ...]
) -> Integers:
    array = _checked_integers(factors, "factors")
    if array.ndim != 2 or array.shape[1] != len(sizes):
        raise ValueError(f"factors must have shape (N, {len(sizes)}), got {array.shape}")
    wrong = np.argwhere((array < 0) | (array >= np.asarray(sizes)))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"factor {names[column]!r} must be between 0 and {sizes[column] - 1}, "
            f"got {array[row, column]} in row {row}"
        )
    return array.astype(np.int64, copy=False)


def _checked_integers(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    # An empty list becomes an array of floats, though nothing in it is one.
    if array.dtype.kind not in "iu" and not (isinstance(values, list | tuple) and not array.size):
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    return array
