"""The official Shapes3D file."""

import math
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from disentangle.data.base import GroundTruthData, Integers
from disentangle.data.ground_truth.npz import read_header
from disentangle.data.ground_truth.rendered_room import FACTOR_NAMES
from disentangle.data.ground_truth.rendered_shapes import FACTOR_SIZES
from disentangle.data.official import MappedArray, OfficialFile, refuse_broken
from disentangle.data.pixels import channels_first

OFFICIAL = OfficialFile(
    name="3dshapes.h5",
    project="3d-shapes by Google DeepMind on GitHub",
    checksum="sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
)
IMAGE_SHAPE = (64, 64, 3)
IMAGE_BYTES = math.prod(IMAGE_SHAPE)
CHUNK_LIMIT = 2**22  # bytes that may have to be unpacked for one image
BLOCK_LIMIT = 2**29  # bytes of images in memory while all are unpacked


class Shapes3D(GroundTruthData):
    """A shape in the corner of a room: the official pixels, from a local file.

    Factors: `floor_hue` 10, `wall_hue` 10, `object_hue` 10, `scale` 8, `shape` 4,
    `orientation` 15; their sizes are read from the file's labels. RGB, 64 × 64.

    The images are never loaded whole: a batch is read from the file, or from `unpacked`. The latter
    is needed where the file packs so many images together that a batch would cost nearly all of
    them; that is said then.

    Source: Burgess and Kim, 3D Shapes Dataset, 2018 (3d-shapes by Google DeepMind on GitHub). It
    needs h5py: `pip install 'disentangle[data]'`. The checksum is that of TensorFlow Datasets.

    Args:
        path: The h5 file, or the folder where it lies under its official name.
        unpacked: An npy file for the unpacked images, 5.9 GB for the official file. It is written
            if it is not there, and then mapped into memory.
        verify: Whether a file of the official factor sizes must have the checksum of the official
            one; a repacked one has another.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If h5py is not installed.
        ValueError: If a file is damaged or not of the official format, if its checksum is wrong,
            or if `unpacked` is needed.

    Examples:
        >>> Shapes3D(path="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no 3dshapes.h5 at nowhere; get it from 3d-shapes by Google ...
    """

    def __init__(
        self, *, path: str | Path, unpacked: str | Path | None = None, verify: bool = True
    ) -> None:
        self._file = OFFICIAL.locate(path)
        h5py = _import_h5py()
        with refuse_broken(self._file, "the Shapes3D file"), h5py.File(self._file) as content:
            factor_sizes = _read_factor_sizes(content)
            if verify and factor_sizes == FACTOR_SIZES:
                OFFICIAL.verify(self._file)
            images = _find_images(content, math.prod(factor_sizes))
            if unpacked is None:
                _check_chunks(images)
            elif not Path(unpacked).exists():
                _unpack(images, Path(unpacked))
        super().__init__(
            image_size=IMAGE_SHAPE[0],
            image_channels=IMAGE_SHAPE[2],
            factor_names=FACTOR_NAMES,
            factor_sizes=factor_sizes,
        )
        self.paths = (self._file, *([] if unpacked is None else [Path(unpacked)]))
        self._stored = None if unpacked is None else _map_unpacked(Path(unpacked), len(self))

    def _images(self, indices: Integers) -> Tensor:
        if self._stored is not None:
            return channels_first(self._stored.open()[indices])
        # HDF5 takes increasing indices only. Opened anew, since no handle survives a fork.
        unique, inverse = np.unique(indices, return_inverse=True)
        with _import_h5py().File(self._file) as content:
            return channels_first(content["images"][unique][inverse])


def _import_h5py() -> ModuleType:
    """Import h5py late, since only this data set needs it."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Shapes3D needs h5py: pip install 'disentangle[data]'", name="h5py"
        ) from error
    return h5py


def _read_factor_sizes(content: Any) -> tuple[int, ...]:
    """Read the number of values of each factor in an open h5 file, which has all combinations."""
    labels = _find(content, "labels")
    most, columns = math.prod(FACTOR_SIZES), len(FACTOR_NAMES)
    if labels.ndim != 2 or not 0 < labels.shape[0] <= most or labels.shape[1] != columns:
        raise ValueError(f"labels must have shape ({most}, {columns}), got {labels.shape}")
    if labels.dtype.kind != "f":
        raise ValueError(f"labels must be floats, got {labels.dtype}")
    values = [np.unique(column, return_inverse=True) for column in labels[()].T]
    sizes = tuple(len(unique) for unique, _ in values)
    if math.prod(sizes) != len(labels):
        raise ValueError(
            f"labels must have every combination of {sizes} values once, got {len(labels)} rows"
        )
    expected = np.unravel_index(np.arange(len(labels)), sizes)
    for name, (_, found), column in zip(FACTOR_NAMES, values, expected, strict=True):
        if (found != column).any():
            raise ValueError(f"labels must be in the official order, but {name} is not")
    return sizes


def _find_images(content: Any, count: int) -> Any:
    """Find the images `(N, 64, 64, 3)` of an open h5 file, without reading them."""
    images = _find(content, "images")
    if images.shape != (count, *IMAGE_SHAPE) or images.dtype != np.uint8:
        raise ValueError(
            f"images must have shape {(count, *IMAGE_SHAPE)} and be uint8, "
            f"got {images.shape} and {images.dtype}"
        )
    return images


def _find(content: Any, name: str) -> Any:
    h5py = _import_h5py()
    # A link, an external and a virtual array would be read from other files, of anyone's choice.
    here = isinstance(content.get(name, getlink=True), h5py.HardLink)
    found = content.get(name) if here else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise ValueError(f"it must contain the array {name}, got {', '.join(sorted(content))}")
    if math.prod(found.chunks or ()) * found.dtype.itemsize > BLOCK_LIMIT:
        raise ValueError(f"{name} must be in chunks of {BLOCK_LIMIT} bytes, got {found.chunks}")
    return found


def _check_chunks(images: Any) -> None:
    together = images.chunks[0] if images.chunks else 1
    if together * IMAGE_BYTES > CHUNK_LIMIT:
        raise ValueError(
            f"it packs {together} images together, all to be unpacked for any of them: name a file "
            f"for the unpacked images, of {len(images) * IMAGE_BYTES / 1e9:.1f} GB, as unpacked"
        )


def _unpack(images: Any, target: Path) -> None:
    """Write the images atomically as an npy file."""
    together = images.chunks[0] if images.chunks else 1
    step = max(together, BLOCK_LIMIT // IMAGE_BYTES // together * together)
    header = {"descr": "|u1", "fortran_order": False, "shape": images.shape}
    starts = tqdm(range(0, len(images), step), desc="unpacking Shapes3D", delay=2, leave=False)
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
        try:
            np.lib.format.write_array_header_1_0(file, header)
            for start in starts:
                file.write(images[start : start + step].data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise


def _map_unpacked(file: Path, count: int) -> MappedArray:
    with refuse_broken(file, "the unpacked images of Shapes3D"), file.open("rb") as content:
        shape = read_header(content, "it")
        if shape != (count, *IMAGE_SHAPE):
            raise ValueError(f"it must have shape {(count, *IMAGE_SHAPE)}, got {shape}")
        return MappedArray(file, content.tell(), shape)
