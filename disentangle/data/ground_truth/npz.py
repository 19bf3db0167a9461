"""Arrays in npz archives, found without unpickling anything."""

import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from disentangle.data.official import MappedArray

LOCAL_HEADER = struct.Struct("<26xHH")  # of a member; the lengths of its name and extra field


def open_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open the npy file of an array, at its start.

    Raises:
        ValueError: If the archive has no such array, or packs it as NumPy does not.
    """
    member = _find_member(archive, name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} must be stored or deflated (np.savez, np.savez_compressed)")
    return archive.open(member)


def read_plain_array(archive: zipfile.ZipFile, name: str, limit: int) -> NDArray[Any]:
    """Read an array of an archive, which must hold no Python objects.

    Its size is checked first: a small file can unpack to any amount, and a header can say
    anything.

    Args:
        archive: The npz file.
        name: The array's.
        limit: Largest size in bytes.

    Raises:
        ValueError: If there is no such array, or if it is larger than that or not as long as its
            header says.
    """
    with open_member(archive, name) as member:
        shape, _, dtype = _read_any_header(member, name)
        start = member.tell()
        stored = archive.getinfo(f"{name}.npy").file_size - start
    expected = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{name} must hold plain values, got {dtype}")
    if not 0 <= expected <= limit:
        raise ValueError(f"{name} must have {limit} bytes at most, got {expected}")
    if stored != expected:
        raise ValueError(f"{name} must have {start + expected} bytes, got {start + stored}")
    with open_member(archive, name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def read_header(file: IO[bytes], name: str) -> tuple[int, ...]:
    """Read the shape of the uint8 array in an npy file, up to its first element.

    Raises:
        ValueError: If the array is not uint8 and row-major, or the npy version not 1.0 or 2.0.
    """
    shape, column_major, dtype = _read_any_header(file, name)
    if dtype != np.uint8 or column_major:
        order = "column-major" if column_major else "row-major"
        raise ValueError(f"{name} must be row-major uint8, got {order} {dtype}")
    return shape


def _read_any_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the shape of the array in an npy file, whether it is column-major, and its type."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"{name} must have npy version 1.0 or 2.0, got {version}")
    shape, column_major, dtype = readers[version](file)
    if any(size < 0 for size in shape):
        raise ValueError(f"{name} must have no negative dimension, got {shape}")
    return shape, column_major, dtype


def map_member(file: Path, name: str) -> MappedArray:
    """Locate the uint8 array of an npz archive in the file.

    Raises:
        ValueError: If there is no such array, if it is compressed or encrypted, or if it is not as
            long as its header says.
    """
    with zipfile.ZipFile(file) as archive:
        member = _find_member(archive, name)
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(f"{name} must be neither compressed nor encrypted (np.savez, as official)")
    with file.open("rb") as content:
        content.seek(member.header_offset)
        lengths = LOCAL_HEADER.unpack(content.read(LOCAL_HEADER.size))
        start = member.header_offset + LOCAL_HEADER.size + sum(lengths)
        content.seek(start)
        shape = read_header(content, name)
        offset = content.tell()
    expected = offset - start + math.prod(shape)
    if member.file_size != expected:
        raise ValueError(f"{name} must have {expected} bytes, got {member.file_size}")
    return MappedArray(file, offset, shape)


def _find_member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    names = archive.namelist()
    if f"{name}.npy" not in names:
        found = ", ".join(sorted(each.removesuffix(".npy") for each in names))
        raise ValueError(f"it must contain the array {name}, got {found}")
    return archive.getinfo(f"{name}.npy")
