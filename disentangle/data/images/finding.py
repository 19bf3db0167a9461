"""The images in a folder and the folders in it."""

import os
from collections.abc import Iterator
from pathlib import Path

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find_images(folder: Path) -> list[Path]:
    """All images in a folder and the folders in it, in the order of their names.

    Hidden files and folders (their names begin with a dot) are left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no folder or has no images.
        OSError: If a folder in it cannot be read.
    """
    check_folder(folder)
    found = sorted(_walk(folder), key=lambda path: path.relative_to(folder).parts)
    if not found:
        raise ValueError(f"no images in {folder}: no file ends in {', '.join(EXTENSIONS)}")
    return found


def check_folder(folder: Path) -> None:
    """Looks whether there is such a folder of images.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no folder.
    """
    if not folder.exists():
        raise FileNotFoundError(f"no folder {folder} to find images in ({', '.join(EXTENSIONS)})")
    if not folder.is_dir():
        raise ValueError(
            f"{folder} must be a folder of images ({', '.join(EXTENSIONS)}), got a file"
        )


def _walk(folder: Path) -> Iterator[Path]:
    """The images below a folder, every real folder once, however many links lead to it."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # Sorted in place: os.walk descends in this order, which decides which link comes first.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS):
                yield Path(parent, name)


def _raise(error: OSError) -> None:
    raise error
