"""One run at a time in a folder: two of them would write into each other's files."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def holding(
    folder: Path, *, alone: bool = True, patience: float = 0.2
) -> Iterator[Callable[[], None]]:
    """Keep other processes from holding a folder until the block, or this process, ends.

    Nothing is written, so that a kill leaves nothing behind. Where the file system knows no locks,
    nothing is kept from anybody.

    Args:
        folder: An existing one.
        alone: Whether others are kept out; otherwise it is only seen to that nobody else is alone
            in it, which several processes can do at once.
        patience: Seconds to wait for another process.

    Yields:
        A check that raises `FileNotFoundError` once the folder has been renamed or deleted, also if
        there is another one in its place.

    Raises:
        BlockingIOError: If another process holds the folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        held = _lock(descriptor, folder, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, patience)
        try:
            yield lambda: _check_place(descriptor, folder)
        finally:
            if held:  # not by closing alone: workers that have not ended yet have it open, too
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _check_place(descriptor: int, folder: Path) -> None:
    try:
        if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return
    except FileNotFoundError:
        pass
    raise FileNotFoundError(f"the run folder {folder} was renamed or deleted")


def _lock(descriptor: int, folder: Path, kind: int, patience: float) -> bool:
    """Lock a folder; return False if the file system has no locks."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise BlockingIOError(
                    f"another process trains in {folder}: wait for its end, or choose another "
                    "--output"
                ) from error
        except OSError:  # a file system without locks
            return False
        time.sleep(0.05)
