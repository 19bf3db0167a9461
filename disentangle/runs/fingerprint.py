"""Tell on resuming whether the data are still those that the run was trained on."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from disentangle.data import ImageData

MODIFIED = "files of the data set have been modified"


@dataclass(frozen=True)
class Fingerprint:
    """Identity of a data set, known without decoding an image.

    Attributes:
        images: Number of images.
        files: Hash of the names and sizes of the files; names are relative to their common folder.
        times: Hash of their modification times.
    """

    images: int
    files: str
    times: str

    @classmethod
    def of(cls, data: ImageData) -> "Fingerprint":
        """Fingerprint of a data set as its files are now."""
        files, times = hashlib.sha256(), hashlib.sha256()
        names = [os.path.abspath(path) for path in data.paths]
        root = os.path.commonpath({os.path.dirname(name) for name in names} or {""})
        for name in names:
            size, time = _stat(name)
            files.update(os.fsencode(f"{name[len(root) :]}\0{size}\0"))
            times.update(f"{time}\0".encode())
        return cls(len(data), files.hexdigest(), times.hexdigest())

    def describe_change(self, then: Mapping[str, Any]) -> str | None:
        """Describe how the data differ from those of a checkpoint.

        Args:
            then: Facts in the checkpoint; what it lacks, as those of older versions do, is not
                compared.
        """
        images = then.get("images")
        if isinstance(images, int) and images != self.images:
            return f"the data set had {images} images and has {self.images} now"
        if then.get("files", self.files) != self.files:
            return "names or sizes of the data set's files have changed"
        return MODIFIED if then.get("times", self.times) != self.times else None


def _stat(name: str) -> tuple[int, int]:
    """Size and modification time of a file; a missing one is an error when it is asked for."""
    try:
        facts = os.stat(name)
    except OSError:
        return -1, -1
    return facts.st_size, facts.st_mtime_ns
