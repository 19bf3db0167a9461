"""The official SmallNORB files."""

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from disentangle.data.base import GroundTruthData, Integers, check_indices
from disentangle.data.official import MappedArray, OfficialFile, refuse_broken
from disentangle.data.pixels import shrink

ALL_SIZES = (5, 10, 9, 18, 6)  # category, instance, elevation, azimuth, lighting
VISIBLE = (0, 2, 3, 4)  # the instance is hidden
FACTOR_NAMES = ("category", "elevation", "azimuth", "lighting")
MAGIC = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}
KINDS = ("dat", "cat", "info")
SPLITS = ("5x46789x9x18x6x2x96x96-training", "5x01235x9x18x6x2x96x96-testing")
SPLIT_SIZE = 24_300
CAMERAS, STORED_SIZE, IMAGE_SIZE = 2, 96, 64
PROJECT = "THE small NORB DATASET, V1.0, by Huang and LeCun at New York University, and unpack it"


class SmallNORB(GroundTruthData):
    """Photographs of 50 toys: the official pixels, from local files.

    Factors: `category` 5 (animal, human, plane, truck, car), `elevation` 9, `azimuth` 18,
    `lighting` 6. Grey, the left camera's, shrunk from 96 × 96 to 64 × 64 (Lanczos). The training
    and the testing files are taken together, as in disentanglement_lib.

    Each category has 10 toys. Which of them is seen, the instance, is hidden: it is no factor, and
    the data set has ten images of every combination. `index` picks one of the ten at random, as a
    pure function of all the factors that it is given: equal rows of one call can get different
    toys. Indices are in the order of category, instance, elevation, azimuth, lighting.

    The images are mapped into memory, so that only those asked for are read. No checksum of the
    unpacked files is published; headers, lengths and factors are checked.

    Source: LeCun, Huang, Bottou, CVPR 2004; hidden instance as in Locatello et al., 2019,
    https://arxiv.org/abs/1811.12359.

    Args:
        path: The folder with the six official files, unpacked (`smallnorb-….mat`).

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is damaged or not of the official format.

    Examples:
        >>> SmallNORB(path="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no smallnorb-...-training-dat.mat at nowhere/...; get it from THE ...
    """

    def __init__(self, *, path: str | Path) -> None:
        super().__init__(
            image_size=IMAGE_SIZE,
            image_channels=1,
            factor_names=FACTOR_NAMES,
            factor_sizes=tuple(ALL_SIZES[column] for column in VISIBLE),
        )
        names = [f"smallnorb-{split}-{kind}.mat" for split in SPLITS for kind in KINDS]
        self.paths = tuple(Path(path) / name for name in names)
        self._stored = tuple(_map_images(Path(path), split) for split in SPLITS)
        factors = np.concatenate([_read_factors(Path(path), split) for split in SPLITS])
        with refuse_broken(Path(path), "SmallNORB"):
            self._places = _find_places(factors)

    def __len__(self) -> int:
        """Number of images, of all instances."""
        return len(self._places)

    def index(self, factors: ArrayLike) -> Integers:
        """Return an index int64 `(N,)` of each row of factors `(N, F)`, of a random instance.

        Raises:
            ValueError: If the shape is another, or a factor is no integer or out of its range.
        """
        combinations = super().index(factors)
        category, *others = np.unravel_index(combinations, self.factor_sizes)
        generator = np.random.default_rng(zlib.crc32(combinations.tobytes()))
        instance = generator.integers(ALL_SIZES[1], size=len(combinations))
        return np.ravel_multi_index((category, instance, *others), ALL_SIZES).astype(np.int64)

    def factors(self, indices: ArrayLike) -> Integers:
        """Return the factors int64 `(N, F)` of indices `(N,)`, without the instance.

        Raises:
            ValueError: If an index is not an integer, or not between 0 and `len(self) - 1`.
        """
        columns = np.unravel_index(check_indices(indices, len(self)), ALL_SIZES)
        return np.stack([columns[column] for column in VISIBLE], axis=1).astype(np.int64)

    def _images(self, indices: Integers) -> Tensor:
        images = np.empty((len(indices), 1, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
        stored = [each.open() for each in self._stored]
        for image, place in zip(images, self._places[indices], strict=True):
            split, row = divmod(place, SPLIT_SIZE)
            image[0] = shrink(stored[split][row, 0], IMAGE_SIZE)  # of the left camera
        return torch.from_numpy(images)


def _map_images(folder: Path, split: str) -> MappedArray:
    """Map the image pairs uint8 `(N, 2, 96, 96)` of a split."""
    shape = (SPLIT_SIZE, CAMERAS, STORED_SIZE, STORED_SIZE)
    return _map(folder, f"smallnorb-{split}-dat.mat", "uint8", shape)


def _read_factors(folder: Path, split: str) -> Integers:
    """Read factors `(N, 5)` of a split: category, instance, elevation, azimuth / 20°, lighting."""
    category = _map(folder, f"smallnorb-{split}-cat.mat", "int32", (SPLIT_SIZE,)).open()
    others = _map(folder, f"smallnorb-{split}-info.mat", "int32", (SPLIT_SIZE, 4)).open()
    # Azimuths are stored as 0, 2, …, 34; an odd one becomes -1, which is none.
    azimuth = np.where(others[:, 2] % 2, -1, others[:, 2] // 2)
    columns = (category, others[:, 0], others[:, 1], azimuth, others[:, 3])
    return np.column_stack(columns).astype(np.int64)


def _map(folder: Path, name: str, dtype: str, shape: tuple[int, ...]) -> MappedArray:
    file = OfficialFile(name=name, project=PROJECT).locate(folder / name)
    with refuse_broken(file, "a SmallNORB file"):
        return map_matrix(file, dtype, shape)


def map_matrix(file: Path, dtype: str, shape: tuple[int, ...]) -> MappedArray:
    """Return the array in a file of NORB's binary matrix format, mapped into memory.

    A file is a magic number that tells the type, the number of dimensions, the dimensions (at least
    three, of which those beyond the number mean nothing), all little-endian int32, and the
    elements, row-major.

    Source: the page of THE small NORB DATASET, V1.0, by Huang and LeCun.

    Args:
        file: Path of the file.
        dtype: Expected type, `uint8` or `int32`.
        shape: The expected shape.

    Raises:
        ValueError: If the type, the shape or the length of the file is another.
    """
    fields = struct.Struct(f"<{2 + max(3, len(shape))}i")
    with file.open("rb") as content:
        start = content.read(fields.size)
    if len(start) < fields.size:
        raise ValueError(f"it must begin with {fields.size} bytes, got {len(start)}")
    magic, dimensions, *sizes = fields.unpack(start)
    if magic != MAGIC[dtype]:
        raise ValueError(f"it must begin with {MAGIC[dtype]:#x} ({dtype}), got {magic:#x}")
    if dimensions != len(shape) or tuple(sizes[: len(shape)]) != shape:
        raise ValueError(f"it must have shape {shape}, got {dimensions} dimensions of {sizes}")
    length, expected = (
        file.stat().st_size,
        fields.size + math.prod(shape) * np.dtype(dtype).itemsize,
    )
    if length != expected:
        raise ValueError(f"it must have {expected} bytes, got {length}")
    return MappedArray(file, fields.size, shape, np.dtype(dtype).newbyteorder("<").str)


def _find_places(factors: Integers) -> Integers:
    """Find the position of the image of each combination, counted through the splits."""
    wrong = ((factors < 0) | (factors >= ALL_SIZES)).any(axis=1)
    if wrong.any():
        row = factors[wrong][0].tolist()
        raise ValueError(
            "category, instance, elevation, azimuth / 20° and lighting must be within "
            f"{ALL_SIZES}, got {row}"
        )
    combinations = np.ravel_multi_index(tuple(factors.T), ALL_SIZES)
    found = len(np.unique(combinations))
    if not found == len(combinations) == np.prod(ALL_SIZES):
        raise ValueError(
            f"there must be every combination of {ALL_SIZES} once, "
            f"got {found} in {len(combinations)} images"
        )
    return np.argsort(combinations)
