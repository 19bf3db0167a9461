"""Official files: finding them, and errors for missing or broken ones."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OfficialFile:
    """A file that its authors publish.

    Attributes:
        name: Name of the file.
        project: Source of the file, in words.
        checksum: Its published checksum as `algorithm:digest`; `None` where there is none.
    """

    name: str
    project: str
    checksum: str | None = None

    def locate(self, path: str | Path) -> Path:
        """Find the file at a path, or in the folder at a path under its official name.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        file = Path(path) / self.name if Path(path).is_dir() else Path(path)
        if not file.is_file():
            known = f" ({self.checksum})" if self.checksum else ""
            raise FileNotFoundError(f"no {self.name} at {file}; get it from {self.project}{known}")
        return file

    def verify(self, file: Path) -> None:
        """Compare a file with the published checksum.

        Raises:
            ValueError: If they differ.
        """
        if self.checksum is None:
            return
        algorithm, _, expected = self.checksum.partition(":")
        with file.open("rb") as content:
            found = hashlib.file_digest(content, algorithm).hexdigest()
        if found != expected:
            raise ValueError(
                f"its {algorithm} must be {expected}, got {found} (verify false accepts a repacked "
                "file)"
            )


@dataclass(frozen=True)
class MappedArray:
    """A row-major array in a file, mapped into memory when it is asked for.

    It pickles as its place in the file; an open `np.memmap` would pickle its content.

    Attributes:
        file: The file.
        offset: Offset of the array in the file, in bytes.
        shape: Its shape.
        dtype: Its type, as NumPy writes it.

    Raises:
        ValueError: If the file is too short.
    """

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        expected = self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize
        found = self.file.stat().st_size
        if found < expected:
            raise ValueError(f"it must have at least {expected} bytes, got {found}")

    def open(self) -> NDArray[Any]:
        """Map the array into memory: only what is indexed is read."""
        return np.memmap(self.file, self.dtype, "r", self.offset, self.shape)


def official_folder(path: str | Path, name: str) -> Path:
    """Return the folder of an official name at a path; if there is none, the path itself."""
    inside = Path(path) / name
    return inside if inside.is_dir() else Path(path)


def locate_folder(folder: Path, project: str) -> Path:
    """Return the folder if it exists.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.name} at {folder}; get it from {project}")
    return folder


def read_lines(folder: Path, name: str, project: str) -> list[str]:
    """Read the lines of an official text file that are not empty.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no text.
    """
    file = OfficialFile(name=Path(name).name, project=project).locate(folder / name)
    with refuse_broken(file, "a text file"):
        return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]


def check_inside(names: Iterable[str]) -> None:
    """Raise unless the files that an official file names are below its own folder.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"it must name files of its own folder, got {name!r}")


@contextmanager
def refuse_broken(file: Path, expected: str) -> Iterator[None]:
    """Turn whatever a reader raises on a damaged file into a `ValueError` of one line.

    Args:
        file: Path of the file, for the message.
        expected: Kind of file it should be, such as `the dSprites file`.

    Raises:
        ValueError: If the block raises anything but an error of the operating system.

    Examples:
        >>> with refuse_broken(Path("a.npz"), "the dSprites file"):
        ...     raise EOFError("No data left")
        Traceback (most recent call last):
        ValueError: a.npz is not the dSprites file: No data left
    """
    try:
        yield
    # Readers raise errors of many types on damaged files, KeyError and RuntimeError among them.
    except Exception as error:
        # An error number means that the system refused something: the file need not be broken.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} is not {expected}: {message}") from error
