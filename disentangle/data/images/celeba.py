"""The official CelebA files."""

from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from disentangle.data.base import ImageData, Integers
from disentangle.data.images.decoding import Decoder
from disentangle.data.images.files import ImageFiles
from disentangle.data.official import check_inside, locate_folder, read_lines, refuse_broken

SPLITS = ("train", "valid", "test")  # 0, 1 and 2 in the official list
IMAGES, PARTITION = "img_align_celeba", "list_eval_partition.txt"
ATTRIBUTES = "list_attr_celeba.txt"
PROJECT = "Large-scale CelebFaces Attributes (CelebA) Dataset by MMLab at CUHK, and unpack it"
CROP = 170


class CelebA(ImageData):
    """202,599 faces of celebrities, aligned: the official files, from a local folder.

    The files are 178 × 218. By default the central square of 170 pixels is kept, the crop of the
    published code of OroJaR (csyxwei/OroJaR on GitHub), which takes 24 rows off the top and the
    bottom and 4 columns off each side; it resizes with bicubic interpolation, this class with
    Lanczos. Images are read as in `ImageFolder`.

    Source: Liu et al., Deep Learning Face Attributes in the Wild, 2015,
    https://arxiv.org/abs/1411.7766.

    Args:
        path: The folder with `img_align_celeba` (`000001.jpg` …) and `list_eval_partition.txt`;
            `list_attr_celeba.txt` is read where it is there.
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        crop: Side of the central square that is kept, in pixels of the file; `None` is the largest,
            of 178.
        split: Split of the images: `all`, or the official `train`, `valid` or `test`.
        check: Decode every file now. If not, a corrupt one is an error when it is asked for.
        on_corrupt: Action for a file that cannot be decoded: `error` raises, `skip` leaves it out.

    Attributes:
        paths: The file of each image.
        skipped: The files that were left out.
        attribute_names: Names of the A attributes; empty without their file.
        attributes: 1 for the attributes that an image has, else 0, int64 `(N, A)`.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If a list is damaged, if an image is corrupt (or all are, with `skip`), or if
            an argument is not one of those above.

    Examples:
        >>> CelebA(path="nowhere", image_size=128)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no list_eval_partition.txt at nowhere/...; get it from Large-scale ...
    """

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int,
        image_channels: int = 3,
        crop: int | None = CROP,
        split: Literal["all", "train", "valid", "test"] = "all",
        check: bool = True,
        on_corrupt: Literal["error", "skip"] = "error",
    ) -> None:
        if split != "all" and split not in SPLITS:
            raise ValueError(f"split must be one of all, {', '.join(SPLITS)}, got {split!r}")
        decoder = Decoder(image_size=image_size, image_channels=image_channels, crop=crop)
        super().__init__(image_size=decoder.image_size, image_channels=decoder.image_channels)
        folder = Path(path)
        names, splits = _read_partition(folder)
        self.attribute_names, attributes = _read_attributes(folder, names)
        images = locate_folder(folder / IMAGES, PROJECT)
        rows = np.flatnonzero([split in ("all", each) for each in splits])
        self._files = ImageFiles(
            [images / names[row] for row in rows],
            decoder,
            folder=images,
            check=check,
            on_corrupt=on_corrupt,
        )
        self.paths, self.skipped = self._files.paths, self._files.skipped
        self.attributes = attributes[rows[self._files.kept]]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def _images(self, indices: Integers) -> Tensor:
        return self._files.load(indices)


def _read_partition(folder: Path) -> tuple[list[str], list[str]]:
    """Read the name of each image and its split."""
    lines = read_lines(folder, PARTITION, PROJECT)
    with refuse_broken(folder / PARTITION, "CelebA's list of splits"):
        rows = [line.split() for line in lines]
        wrong = [row for row in rows if len(row) != 2 or row[1] not in ("0", "1", "2")]
        if wrong or not rows:
            found = f"the line {' '.join(wrong[0])!r}" if wrong else "no lines"
            raise ValueError(f"its lines must be a file and 0, 1 or 2, got {found}")
        check_inside(name for name, _ in rows)
        return [name for name, _ in rows], [SPLITS[int(number)] for _, number in rows]


def _read_attributes(folder: Path, names: list[str]) -> tuple[tuple[str, ...], Integers]:
    """Read the A names of the attributes, and the attributes 0 or 1 of each image `(N, A)`."""
    if not (folder / ATTRIBUTES).is_file():
        return (), np.zeros((len(names), 0), dtype=np.int64)
    lines = read_lines(folder, ATTRIBUTES, PROJECT)
    with refuse_broken(folder / ATTRIBUTES, "CelebA's list of attributes"):
        count, header, *rows = lines
        if int(count) != len(rows) or [row.split(maxsplit=1)[0] for row in rows] != names:
            raise ValueError(f"it must list the {len(names)} images of {PARTITION}, in that order")
        table = np.loadtxt((row.split(maxsplit=1)[1] for row in rows), dtype=np.int8, ndmin=2)
        attributes = tuple(header.split())
        if table.shape != (len(names), len(attributes)) or not np.isin(table, (-1, 1)).all():
            raise ValueError(f"each image must have {len(attributes)} values of -1 or 1")
        return attributes, (table == 1).astype(np.int64)
