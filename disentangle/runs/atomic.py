"""Files and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def filling(temporary: Path) -> Iterator[Path]:
    """A folder to fill; if that fails it is removed, as it may be what the disk is full of."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def naming_place(folder: Path) -> Iterator[None]:
    """Says where it was that PyTorch or safetensors, which have errors of their own, cannot write.

    Raises:
        OSError: In place of such an error.
    """
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(folder).free / 1e6
        reason = " ".join(str(error).split())
        raise OSError(
            f"{folder.parent} cannot be written to, with {free:,.0f} MB free: {reason}"
        ) from error


def replace_files(folder: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary folder, then moves each file to its place atomically."""
    with filling(temporary_of(folder)) as temporary:
        with naming_place(temporary):
            write(temporary)
        for file in temporary.iterdir():
            flush(file)
    folder.mkdir(exist_ok=True)
    for file in temporary.iterdir():
        os.replace(file, folder / file.name)
    temporary.rmdir()
    flush(folder)


def replace_text(file: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    temporary = temporary_of(file)
    temporary.unlink(missing_ok=True)
    with temporary.open("x", encoding="utf-8") as stream:  # never through a link
        stream.write(text)
    flush(temporary)
    os.replace(temporary, file)


def temporary_of(file: Path) -> Path:
    """Return the name of a file or folder while it is being written."""
    return file.with_name(f".{file.name}.tmp")


def flush(path: Path) -> None:
    """Returns when the file, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
