"""The official CUB-200-2011 files."""

from pathlib import Path
from typing import Literal

from disentangle.data.images.decoding import Decoder
from disentangle.data.labelled.files import LabelledFiles
from disentangle.data.official import (
    check_inside,
    locate_folder,
    official_folder,
    read_lines,
    refuse_broken,
)

SPLITS = ("train", "test")
FOLDER = "CUB_200_2011"
PROJECT = "Caltech-UCSD Birds-200-2011 by Wah et al. (CUB_200_2011.tgz), and unpack it"


class CUB200(LabelledFiles):
    """11,788 photographs of 200 kinds of birds: the official files, from a local folder.

    5,994 for training and 5,794 for the test. Images are read as in `ImageFolder`, without regard
    to the boxes of the birds.

    Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, 2011.

    Args:
        path: The official folder `CUB_200_2011`, or the one in which it lies.
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        split: Split of the images: the official `train` or `test`.
        check: Decode every file now. If not, a corrupt one is an error when it is asked for.
        on_corrupt: Action for a file that cannot be decoded: `error` raises, `skip` leaves it out.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If a list is damaged, if an image is corrupt (or all are, with `skip`), or if
            an argument is not one of those above.

    Examples:
        >>> CUB200(path="nowhere", image_size=64)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no images.txt at nowhere/images.txt; get it from Caltech-UCSD ...
    """

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int,
        image_channels: int = 3,
        split: Literal["train", "test"] = "train",
        check: bool = True,
        on_corrupt: Literal["error", "skip"] = "error",
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        decoder = Decoder(image_size=image_size, image_channels=image_channels)
        folder = official_folder(path, FOLDER)
        paths = _read_column(folder, "images.txt")
        classes = _read_column(folder, "image_class_labels.txt")
        training = _read_column(folder, "train_test_split.txt")
        names = _read_column(folder, "classes.txt")
        images = locate_folder(folder / "images", PROJECT)
        with refuse_broken(folder, FOLDER):
            check_inside(paths.values())
            _check_tables(paths, classes, training)
            numbers = {key: number for number, key in enumerate(names)}
            chosen = [key for key in paths if training[key] == ("1" if split == "train" else "0")]
            labels = [numbers[classes[key]] for key in chosen]
        super().__init__(
            [images / paths[key] for key in chosen],
            labels,
            list(names.values()),
            decoder,
            folder=images,
            check=check,
            on_corrupt=on_corrupt,
        )


def _read_column(folder: Path, name: str) -> dict[str, str]:
    """Read a list of numbers, each with a word."""
    lines = read_lines(folder, name, PROJECT)
    with refuse_broken(folder / name, f"a list of {FOLDER}"):
        if wrong := [line for line in lines if len(line.split()) != 2]:
            raise ValueError(f"its lines must be a number and a word, got {wrong[0]!r}")
        return dict(line.split() for line in lines)


def _check_tables(paths: dict[str, str], *others: dict[str, str]) -> None:
    if not paths or any(other.keys() != paths.keys() for other in others):
        counts = ", ".join(str(len(each)) for each in (paths, *others))
        raise ValueError(f"the lists must be of the same images, got {counts}")
