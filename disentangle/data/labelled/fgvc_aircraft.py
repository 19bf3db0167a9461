"""The official FGVC-Aircraft files."""

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

SPLITS = ("train", "val", "trainval", "test")
FOLDER = "fgvc-aircraft-2013b"
BANNER = 20  # rows at the bottom that name the photographer
PROJECT = "Fine-Grained Visual Classification of Aircraft by VGG at Oxford, and unpack it"


class FGVCAircraft(LabelledFiles):
    """10,000 photographs of 100 variants of aircraft: the official files, from a local folder.

    3,334 for training, 3,333 for validation and 3,333 for the test. The banner in the bottom 20
    rows, which names the photographer, is cut off; otherwise images are read as in `ImageFolder`,
    without regard to the boxes of the aircraft.

    Source: Maji et al., 2013, https://arxiv.org/abs/1306.5151.

    Args:
        path: The official folder `fgvc-aircraft-2013b`, or the one in which it lies.
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        split: Split of the images: the official `train`, `val`, `trainval` (both) or `test`.
        check: Decode every file now. If not, a corrupt one is an error when it is asked for.
        on_corrupt: Action for a file that cannot be decoded: `error` raises, `skip` leaves it out.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If a list is damaged, if an image is corrupt (or all are, with `skip`), or if
            an argument is not one of those above.

    Examples:
        >>> FGVCAircraft(path="nowhere", image_size=64)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no variants.txt at nowhere/data/variants.txt; get it from Fine-...
    """

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int,
        image_channels: int = 3,
        split: Literal["train", "val", "trainval", "test"] = "trainval",
        check: bool = True,
        on_corrupt: Literal["error", "skip"] = "error",
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        decoder = Decoder(image_size=image_size, image_channels=image_channels, banner=BANNER)
        folder = official_folder(path, FOLDER) / "data"
        names = read_lines(folder, "variants.txt", PROJECT)
        listing = f"images_variant_{split}.txt"
        rows = [line.split(maxsplit=1) for line in read_lines(folder, listing, PROJECT)]
        images = locate_folder(folder / "images", PROJECT)
        numbers = {name: number for number, name in enumerate(names)}
        with refuse_broken(folder / listing, f"a list of {FOLDER}"):
            wrong = [row for row in rows if len(row) != 2 or row[1] not in numbers]
            if wrong or not rows:
                found = repr(" ".join(wrong[0])) if wrong else "none"
                raise ValueError(f"its lines must be an image and a variant, got {found}")
            check_inside(image for image, _ in rows)
        super().__init__(
            [images / f"{image}.jpg" for image, _ in rows],
            [numbers[name] for _, name in rows],
            names,
            decoder,
            folder=images,
            check=check,
            on_corrupt=on_corrupt,
        )
