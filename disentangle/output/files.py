"""Output paths that are checked before hours of work, and written when it is done."""

import os
from collections.abc import Sequence
from pathlib import Path


def check_file(
    file: Path, *, overwrite: bool, endings: Sequence[str] = (), new_folder: bool = False
) -> None:
    """Raise unless a file can and may be written; nothing is touched.

    Args:
        file: Path to write to.
        overwrite: Whether an existing file may be replaced.
        endings: Suffixes to choose from, such as `.png`; by default any.
        new_folder: Whether the folder will be made if it does not exist.

    Raises:
        FileExistsError: If the file exists and must not be replaced.
        ValueError: If it has another ending, is a folder, or its folder does not exist or cannot be
            written to.
    """
    if endings and file.suffix not in endings:
        raise ValueError(f"the file must end in {' or '.join(endings)}, got {file}")
    if file.is_dir():
        raise ValueError(f"{file} cannot be written: it is a folder")
    refuse_replacement(file, overwrite=overwrite)
    if not (new_folder or file.parent.is_dir()):
        raise ValueError(f"{file} cannot be written: there is no folder {file.parent}")
    if not file.exists():
        check_folder(file.parent)


def check_folder(folder: Path) -> None:
    """Raise unless a folder can be written to, or made if it does not exist.

    Raises:
        ValueError: If it cannot, or its path leads up (`..`) from a folder that does not exist.
    """
    if ".." in folder.parts and not folder.exists():  # another folder as soon as it is made
        raise ValueError(f"cannot write to {folder}, which leads up from no folder")
    tried = (folder.absolute(), *folder.absolute().parents)
    place = next(path for path in tried if os.path.lexists(path))
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(f"cannot write to {folder}: {place} is not a writable folder")


def refuse_replacement(path: Path, *, overwrite: bool) -> None:
    """Raise `FileExistsError` if a file or folder exists, unless it may be replaced."""
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists: add --overwrite (in Python: overwrite=True) to replace it"
        )


def write_file(file: Path, content: bytes, *, overwrite: bool) -> None:
    """Write a file, in a folder that is made if it does not exist.

    Raises:
        OSError: If the file cannot be written, or exists and must not be replaced.
    """
    file.parent.mkdir(exist_ok=True)
    with file.open("wb" if overwrite else "xb") as stream:
        stream.write(content)
