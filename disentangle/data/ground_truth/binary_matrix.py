"""The binary matrix format of the NORB data sets."""

import math
import struct
from pathlib import Path

import numpy as np

from disentangle.data.official import MappedArray

MAGIC = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}


def map_matrix(file: Path, dtype: str, shape: tuple[int, ...]) -> MappedArray:
    """The array of a file, where it lies, if it is as expected.

    A file is a magic number that tells the type, the number of dimensions, the dimensions (at least
    three, of which those beyond the number mean nothing), all little-endian int32, and the
    elements, row-major.

    Source: the page of THE small NORB DATASET, V1.0, by Huang and LeCun.

    Args:
        file: The file.
        dtype: `uint8` or `int32`.
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
