"""The images in a folder and the folders in it."""

import os
from collections.abc import Iterable, Iterator
from mimetypes import MimeTypes
from pathlib import Path

from disentangle.data.images.decoding import FORMATS, is_decodable
from disentangle.data.images.left_out import LeftOut

# A file with one of these extensions must be an image. One with another or none is an image if its
# header says so; what OTHER_EXTENSIONS tell to be text, sound or the like is not opened.
EXTENSIONS = frozenset(
    (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
OTHER_EXTENSIONS = frozenset(
    extension
    for extension, kind in MimeTypes().types_map[True].items()
    if not kind.startswith("image/") and kind != "application/octet-stream"
)
# Thumbnails, metadata and deleted files, which systems and programs put beside images.
SYSTEM_FOLDERS = frozenset(
    {
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "__macosx",
        "__pycache__",
        "lost+found",
        "system volume information",
    }
)


def find_images(folder: Path, left_out: LeftOut) -> list[Path]:
    """Return all images in a folder and the folders in it, in the order of their names.

    Hidden files and folders (their names begin with a dot) and `SYSTEM_FOLDERS` are left out.

    Args:
        folder: The folder.
        left_out: Collects what is left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no folder or has no images.
        OSError: If a folder in it cannot be read.
    """
    check_folder(folder)
    found = sorted(
        _walk(folder, left_out, seen=set()), key=lambda path: path.relative_to(folder).parts
    )
    if not found:
        rest = "; ".join(left_out.describe())
        reason = f"{rest} left out" if rest else "it has no files"
        raise ValueError(f"no images in {folder} ({', '.join(FORMATS)}): {reason}")
    return found


def first_image(
    folder: Path, left_out: LeftOut | None = None, *, without: Iterable[Path] = ()
) -> Path | None:
    """Return any image in a folder and the folders in it; `None` if there is none.

    Args:
        folder: The folder.
        left_out: Collects what is left out before an image is found.
        without: Folders that are not searched.
    """
    seen = {_identify(each) for each in without}
    return next(_walk(folder, left_out or LeftOut(), seen), None)


def folder_names(folder: Path) -> list[str]:
    """Return the names of the folders in a folder but for hidden and system folders.

    There are none if there is no such folder.
    """
    if not folder.is_dir():
        return []
    return [each.name for each in folder.iterdir() if each.is_dir() and not _is_system(each.name)]


def check_folder(folder: Path) -> None:
    """Raise unless there is such a folder.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no folder.
    """
    if not folder.exists():
        raise FileNotFoundError(f"no folder {folder} to find images in ({', '.join(FORMATS)})")
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder of images ({', '.join(FORMATS)}), got a file")


def _walk(folder: Path, left_out: LeftOut, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the images below a folder, every real folder once, however many links lead to it."""
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        if (identity := _identify(Path(parent))) in seen:
            folders.clear()
            continue
        seen.add(identity)
        left_out.folders.update(name for name in folders if _is_system(name))
        # Sorted in place: os.walk descends in this order, which decides which link comes first.
        folders[:] = sorted(name for name in folders if not _is_system(name))
        for name in files:
            if not name.startswith(".") and _is_image(parent, name):
                yield Path(parent, name)
            else:
                left_out.add_file(name)


def _is_system(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _is_image(parent: str, name: str) -> bool:
    extension = os.path.splitext(name)[1].lower()
    if extension in EXTENSIONS or extension in OTHER_EXTENSIONS:
        return extension in EXTENSIONS
    return is_decodable(Path(parent, name))


def _identify(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error
