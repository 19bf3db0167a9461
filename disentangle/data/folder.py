"""A folder of images."""

import os
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from disentangle.data.base import ImageData, Integers, checked_integer

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}


class ImageFolder(ImageData):
    """All images in a folder and the folders in it, cropped to a square.

    The order is that of the names and does not depend on the file system. Hidden files and folders
    (their names begin with a dot) are left out. An image is turned as its EXIF tag says, laid on
    white where it is transparent, converted to RGB or grey, cropped to its central square and
    resized (Lanczos); an image smaller than `image_size` is enlarged.

    Every file is decoded once at construction, in full, since only that finds a truncated one.
    PIL's limit on the number of pixels holds: an image beyond it counts as corrupt. Files are only
    ever read.

    Args:
        path: The folder.
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        on_corrupt: What a file that cannot be decoded does: `error` raises, `skip` leaves it out.

    Attributes:
        paths: The file of each image.
        skipped: The files that were left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no folder or has no images, if an image is corrupt (or all are, with
            `skip`), or if an argument is not one of those above.
        OSError: If a folder in it cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (80, 60)).save(f"{folder}/black.png")
        ...     images = ImageFolder(path=folder, image_size=32)
        ...     images[0].shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int,
        image_channels: int = 3,
        on_corrupt: Literal["error", "skip"] = "error",
    ) -> None:
        if image_channels not in MODES:
            raise ValueError(f"image_channels must be 1 or 3, got {image_channels!r}")
        if on_corrupt not in ("error", "skip"):
            raise ValueError(f"on_corrupt must be 'error' or 'skip', got {on_corrupt!r}")
        super().__init__(
            image_size=checked_integer("image_size", image_size, 1), image_channels=image_channels
        )
        found = _find_images(Path(path))
        self.skipped = tuple(self._find_corrupt(found, stop=on_corrupt == "error"))
        corrupt = frozenset(self.skipped)
        self.paths = tuple(path for path in found if path not in corrupt)
        if not self.paths:
            raise ValueError(f"no image in {path} can be decoded, all {len(found)} are corrupt")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    def _images(self, indices: Integers) -> Tensor:
        shape = (len(indices), self.image_channels, self.image_size, self.image_size)
        images = torch.empty(shape, dtype=torch.uint8)
        for image, index in zip(images, indices, strict=True):
            image.copy_(self._load(self.paths[index]))
        return images

    def _load(self, path: Path) -> Tensor:
        """The image uint8 `(C, H, W)` of a file."""
        try:
            with Image.open(path) as image:
                pixels = _prepare(image, self.image_size, MODES[self.image_channels])
        # Decoders raise errors of many types on damaged files, SyntaxError among them.
        except Exception as error:
            raise ValueError(f"cannot decode {path}: {error}") from error
        array = np.array(pixels).reshape(self.image_size, self.image_size, -1)  # (H, W, C)
        return torch.from_numpy(array).permute(2, 0, 1)

    def _find_corrupt(self, paths: list[Path], *, stop: bool) -> Iterator[Path]:
        """The files that cannot be decoded; with `stop`, the first of them is an error."""
        with ThreadPool(min(32, os.cpu_count() or 1)) as pool:
            problems = pool.imap(self._problem, paths, chunksize=16)
            progress = tqdm(
                problems, desc="checking images", total=len(paths), delay=2, leave=False
            )
            for path, problem in zip(paths, progress, strict=True):
                if problem and stop:
                    raise ValueError(f"{problem} (--data.on_corrupt skip leaves such files out)")
                if problem:
                    yield path

    def _problem(self, path: Path) -> str | None:
        if path.exists() and not path.is_file():  # opening a pipe would wait for a writer
            return f"cannot decode {path}: not a regular file"
        try:
            self._load(path)
        except ValueError as error:
            return str(error)
        return None


def _find_images(folder: Path) -> list[Path]:
    if not folder.exists():
        raise FileNotFoundError(f"no folder {folder} to find images in ({', '.join(EXTENSIONS)})")
    if not folder.is_dir():
        raise ValueError(
            f"{folder} must be a folder of images ({', '.join(EXTENSIONS)}), got a file"
        )
    found = sorted(_walk(folder), key=lambda path: path.relative_to(folder).parts)
    if not found:
        raise ValueError(f"no images in {folder}: no file ends in {', '.join(EXTENSIONS)}")
    return found


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


def _prepare(image: Image.Image, size: int, mode: str) -> Image.Image:
    # A large JPEG is decoded at ½, ¼ or ⅛ of its size, never below twice what is needed.
    image.draft(mode, (2 * size, 2 * size))
    image = _convert(ImageOps.exif_transpose(image), mode)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """The image in 8-bit RGB or grey."""
    if image.mode.startswith("I;16"):
        # PIL would clip 16 bits to 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels must have 8 or 16 bits, got PIL mode {image.mode!r}")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
