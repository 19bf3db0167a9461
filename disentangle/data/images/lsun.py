"""The official LSUN folders."""

import struct
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from torch import Tensor

from disentangle.data.base import ImageData, Integers
from disentangle.data.images.checking import find_decodable
from disentangle.data.images.decoding import Decoder
from disentangle.data.official import OfficialFile, refuse_broken

META = struct.Struct("<40xI92xQQ")  # of a page that describes the file
OFFICIAL = OfficialFile(name="data.mdb", project="LSUN by Yu et al. (fyu/lsun on GitHub), unpacked")


class LSUN(ImageData):
    """Photographs of one kind of scene or object, from a local lmdb folder.

    Each folder, such as `church_outdoor_train_lmdb` or `bedroom_val_lmdb`, holds one kind and
    split. The order is that of its keys. Images are read as in `ImageFolder`: their shorter side
    has 256 pixels as published, and by default the largest central square is kept.

    Only the keys are held in memory; nothing is written into the folder. A file that was cut is
    refused, but lmdb follows what is written in the pages that are there: one that was made to
    mislead it can end the process.

    Source: Yu et al., 2015, https://arxiv.org/abs/1506.03365. It needs lmdb:
    `pip install 'disentangle[data]'`.

    Args:
        path: The lmdb folder, which holds `data.mdb`.
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        crop: Side of the central square that is kept, in pixels of the file, which must not be
            smaller; by default the largest.
        check: Decode every image now. If not, a corrupt one is an error when it is asked for.
        on_corrupt: Action for an image that cannot be decoded: `error` raises, `skip` leaves it
            out.

    Attributes:
        keys: The key of each image.
        skipped: The folder and key of each image that was left out.

    Raises:
        FileNotFoundError: If there is no such folder, or no `data.mdb` in it.
        ModuleNotFoundError: If lmdb is not installed.
        ValueError: If the folder is damaged or empty, if an image is corrupt (or all are, with
            `skip`), or if an argument is not one of those above.

    Examples:
        >>> LSUN(path="nowhere", image_size=64)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no data.mdb at nowhere/data.mdb; get it from LSUN by Yu et al. ...
    """

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int,
        image_channels: int = 3,
        crop: int | None = None,
        check: bool = True,
        on_corrupt: Literal["error", "skip"] = "error",
    ) -> None:
        self._decoder = Decoder(image_size=image_size, image_channels=image_channels, crop=crop)
        super().__init__(image_size=self._decoder.image_size, image_channels=image_channels)
        self._folder = Path(path)
        self.paths = (OFFICIAL.locate(self._folder / OFFICIAL.name),)
        _import_lmdb()  # so that it is not the folder that is said to be wrong without it
        with refuse_broken(self._folder, "an lmdb folder"):
            _check_length(self._folder / OFFICIAL.name)
            with _open(self._folder) as content:
                keys = _read_keys(content)
        with _open(self._folder) as content:
            kept = find_decodable(
                lambda index: self._problem(content, keys[index]),
                len(keys),
                place=self._folder,
                check=check,
                on_corrupt=on_corrupt,
            )
        self.keys = keys[kept]
        self.skipped = tuple(self._name(key) for key in np.delete(keys, kept))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.keys)

    def _images(self, indices: Integers) -> Tensor:
        keys = self.keys[indices]
        # Opened anew, since no open folder survives a fork, and a process may open it only once.
        with _open(self._folder) as content, content.begin() as reader:
            files = [BytesIO(reader.get(bytes(key), b"")) for key in keys]
        return self._decoder.decode_batch(files, [self._name(key) for key in keys])

    def _problem(self, content: Any, key: bytes) -> str | None:
        with content.begin() as reader:
            file = BytesIO(reader.get(bytes(key), b""))
        try:
            self._decoder.decode(file, self._name(key))
        except ValueError as error:
            return str(error)
        return None

    def _name(self, key: bytes) -> str:
        return f"{self._folder}, key {key.decode('ascii', 'backslashreplace')}"


def _open(folder: Path) -> Any:
    return _import_lmdb().open(
        str(folder), readonly=True, lock=False, create=False, readahead=False, meminit=False
    )


def _check_length(file: Path) -> None:
    """Raise unless the file has all its pages: lmdb would end the process at a missing one.

    Two pages tell: at bytes 40, 136 and 144 of each stand the size of a page, the last page that is
    used and the number of the transaction that wrote this. The later one counts.

    Raises:
        ValueError: If pages are missing.
    """
    with file.open("rb") as content:
        first = content.read(META.size)
        page = META.unpack(first)[0] if len(first) == META.size else 0
        content.seek(page)
        second = content.read(META.size)
    if len(second) < META.size:
        raise ValueError(f"{file.name} must have two pages at least")
    _, last, _ = max((META.unpack(each) for each in (first, second)), key=lambda meta: meta[2])
    found = file.stat().st_size
    if found < (last + 1) * page:
        raise ValueError(f"{file.name} must have {(last + 1) * page} bytes, got {found}")


def _import_lmdb() -> ModuleType:
    """Import lmdb late, since only this data set needs it."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "LSUN needs lmdb: pip install 'disentangle[data]'", name="lmdb"
        ) from error
    return lmdb


def _read_keys(content: Any) -> np.ndarray:
    """Read all keys `(N,)` into one array: Python objects would be copied into each worker."""
    with content.begin() as reader:
        keys = np.array(list(reader.cursor().iternext(keys=True, values=False)), dtype=np.bytes_)
    if not len(keys):
        raise ValueError("it has no images")
    return keys
