"""Files and folders that are written whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def filling(temporary: Path) -> Iterator[Path]:
    """A folder to fill; if that fails it is removed, as it may be what the disk is full of.

    Raises:
        OSError: If something cannot be written. PyTorch and safetensors raise errors of their own.
    """
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except Exception as error:
        free = shutil.disk_usage(temporary).free / 1e6
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, RuntimeError | SafetensorError):
            reason = " ".join(str(error).split())
            raise OSError(
                f"{temporary.parent} cannot be written to, with {free:,.0f} MB free: {reason}"
            ) from error
        raise


def replace_files(folder: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary folder, then moves each file to its place atomically."""
    with filling(folder.with_name(f".{folder.name}.tmp")) as temporary:
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
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    flush(temporary)
    os.replace(temporary, file)


def flush(path: Path) -> None:
    """Returns when the file, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
