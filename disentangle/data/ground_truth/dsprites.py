"""The official dSprites file."""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from disentangle.data.base import GroundTruthData, Integers
from disentangle.data.ground_truth.npz import open_member, read_header, read_plain_array
from disentangle.data.ground_truth.sprites import FACTOR_NAMES
from disentangle.data.official import OfficialFile, refuse_broken

OFFICIAL = OfficialFile(
    name="dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz",
    project="dsprites-dataset by Google DeepMind on GitHub",
    checksum="md5:7da33b31b13a06f4b04a70402ce90c2e",
)
OFFICIAL_SIZES = (3, 6, 40, 32, 32)
OFFICIAL_SIZE = 64  # pixels
CHUNK = 4096  # images read at a time: 16 MB
CLASSES_LIMIT = 2**26  # bytes of the classes, of which the official file has 35 MB


class DSprites(GroundTruthData):
    """White squares, ellipses and hearts on black: the official pixels, from a local file.

    Factors and their order are those of `RenderedSprites`; their sizes are read from the file, and
    the official colour, which has one value, is left out. The images are kept as one bit per
    pixel (377 MB for the official file), packed while they are read: the 3 GB of the unpacked array
    never lie in memory. The pickled metadata of the file is not opened.

    Source: Matthey et al., dSprites, 2017 (dsprites-dataset by Google DeepMind on GitHub). The
    checksum is the one that public loaders of this file agree on.

    Args:
        path: The npz file, or the folder where it lies under its official name.
        verify: Whether a file of the official factor sizes must have the checksum of the official
            one; a repacked one has another.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or its arrays are not those of the official format, or
            its checksum is wrong.

    Examples:
        >>> DSprites(path="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no dsprites_ndarray_...npz at nowhere; get it from dsprites-dataset ...
    """

    def __init__(self, *, path: str | Path, verify: bool = True) -> None:
        file = OFFICIAL.locate(path)
        with refuse_broken(file, "the dSprites file"), zipfile.ZipFile(file) as archive:
            factor_sizes = _read_factor_sizes(archive)
            if verify and factor_sizes == OFFICIAL_SIZES:
                OFFICIAL.verify(file)
            packed, image_size = _read_images(archive, math.prod(factor_sizes))
        super().__init__(
            image_size=image_size,
            image_channels=1,
            factor_names=FACTOR_NAMES,
            factor_sizes=factor_sizes,
        )
        self.paths = (file,)
        # A tensor, since torch shares the memory of tensors with spawned workers.
        self._packed = torch.from_numpy(packed)

    def _images(self, indices: Integers) -> Tensor:
        size = self.image_size
        bits = np.unpackbits(self._packed.numpy()[indices], axis=1, count=size * size)
        return torch.from_numpy(bits * np.uint8(255)).view(len(indices), 1, size, size)


def _read_factor_sizes(archive: zipfile.ZipFile) -> tuple[int, ...]:
    classes = read_plain_array(archive, "latents_classes", CLASSES_LIMIT)
    columns = 1 + len(FACTOR_NAMES)
    if classes.ndim != 2 or classes.shape[1] != columns or not len(classes):
        raise ValueError(f"latents_classes must have shape (N, {columns}), got {classes.shape}")
    if len(classes) > (most := math.prod(OFFICIAL_SIZES)):
        raise ValueError(f"latents_classes must have {most} rows at most, got {len(classes)}")
    if classes.dtype.kind not in "iu":
        raise ValueError(f"latents_classes must be integers, got {classes.dtype}")
    sizes = tuple(int(largest) + 1 for largest in classes.max(axis=0))
    _check_order(classes, sizes)
    return sizes[1:]


def _check_order(classes: Integers, sizes: tuple[int, ...]) -> None:
    """Raise unless every combination is there once, in the official order, of one colour."""
    if sizes[0] != 1:
        raise ValueError(f"latents_classes must have one colour, 0, got {sizes[0]}")
    if classes.min() < 0 or np.prod(sizes, dtype=np.float64) != len(classes):
        raise ValueError(
            f"latents_classes must have every combination of {sizes[1:]} classes once, "
            f"got {len(classes)} rows"
        )
    expected = np.stack(np.unravel_index(np.arange(len(classes)), sizes), axis=1)
    wrong = np.flatnonzero((classes != expected).any(axis=1))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"latents_classes must be in the official order, with {expected[row].tolist()} "
            f"in row {row}, got {classes[row].tolist()}"
        )


def _read_images(archive: zipfile.ZipFile, count: int) -> tuple[NDArray[np.uint8], int]:
    """Read the images as bits `(N, ⌈H·W / 8⌉)`, and their height and width."""
    with open_member(archive, "imgs") as member:
        size = _read_image_size(member, count)
        packed = np.empty((count, -(-size * size // 8)), dtype=np.uint8)
        start = 0
        for images in tqdm(
            _chunks(member, count, size * size),
            total=-(-count // CHUNK),
            desc="reading dSprites",
            delay=2,
            leave=False,
        ):
            packed[start : start + len(images)] = np.packbits(images, axis=1)
            start += len(images)
    return packed, size


def _read_image_size(member: IO[bytes], count: int) -> int:
    shape = read_header(member, "imgs")
    if len(shape) != 3 or shape[0] != count or shape[1] != shape[2] or not shape[1]:
        raise ValueError(f"imgs must have shape ({count}, size, size), got {shape}")
    if shape[1] > OFFICIAL_SIZE:
        raise ValueError(f"imgs must have {OFFICIAL_SIZE} pixels a side at most, got {shape[1]}")
    return shape[1]


def _chunks(member: IO[bytes], count: int, pixels: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in groups `(n, pixels)`, read one group at a time."""
    for start in range(0, count, CHUNK):
        expected = min(CHUNK, count - start) * pixels
        content = member.read(expected)
        if len(content) != expected:
            raise ValueError(f"imgs must have {count} images, got fewer bytes than that")
        images = np.frombuffer(content, dtype=np.uint8).reshape(-1, pixels)  # (n, H·W)
        if images.max() > 1:
            raise ValueError(f"imgs must be 0 or 1, got {images.max()}")
        yield images
    if member.read(1):  # reading to the end also lets zipfile compare the checksum
        raise ValueError(f"imgs must have {count} images, got more bytes than that")
