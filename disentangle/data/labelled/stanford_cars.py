"""The official Stanford Cars files."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np

from disentangle.data.images.decoding import Decoder
from disentangle.data.labelled.files import LabelledFiles
from disentangle.data.official import OfficialFile, check_inside, locate_folder, refuse_broken

SPLITS = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
META = "cars_meta.mat"
LIMIT = 100_000  # entries of a list
PROJECT = (
    "3D Object Representations for Fine-Grained Categorization by Krause et al., and unpack it"
)


class StanfordCars(LabelledFiles):
    """16,185 photographs of 196 models of cars: the official files, from a local folder.

    8,144 for training and 8,041 for the test. Images are read as in `ImageFolder`, without regard
    to the boxes of the cars.

    Source: Krause et al., 3D Object Representations for Fine-Grained Categorization, 2013,
    https://doi.org/10.1109/ICCVW.2013.77.

    Args:
        path: The folder with `cars_train`, `cars_test` and `devkit`. In the latter lie
            `cars_meta.mat`, `cars_train_annos.mat` and `cars_test_annos_withlabels.mat`, which is
            published apart from the others.
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
        >>> StanfordCars(path="nowhere", image_size=64)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no cars_meta.mat at nowhere/devkit/cars_meta.mat; get it from 3D ...
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
        devkit = Path(path) / "devkit"
        names = [str(name) for name in _read(devkit, META, "class_names")]
        annotations = _read(devkit, SPLITS[split], "annotations")
        images = locate_folder(Path(path) / f"cars_{split}", PROJECT)
        with refuse_broken(devkit / SPLITS[split], "a list of Stanford Cars"):
            files = [str(each) for each in annotations["fname"]]
            check_inside(files)
            labels = annotations["class"].astype(np.int64) - 1  # classes count from 1
        super().__init__(
            [images / file for file in files],
            labels,
            names,
            decoder,
            folder=images,
            check=check,
            on_corrupt=on_corrupt,
        )


def _read(devkit: Path, name: str, key: str) -> np.ndarray:
    """Read an array `(N,)` of a mat file."""
    from scipy.io import loadmat, whosmat  # late, since it slows every command down

    file = OfficialFile(name=name, project=PROJECT).locate(devkit / name)
    with refuse_broken(file, "a list of Stanford Cars"):
        # The header first, so that no array of another size is unpacked.
        shapes = {name: shape for name, shape, _ in whosmat(file)}
        if key not in shapes:
            raise ValueError(f"it must contain {key}")
        if not 0 < math.prod(shapes[key]) <= LIMIT:
            raise ValueError(f"{key} must have 1 to {LIMIT} entries, got {shapes[key]}")
        content: dict[str, Any] = loadmat(file, variable_names=[key], squeeze_me=True)
        return np.atleast_1d(content[key])
