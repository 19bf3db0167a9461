"""The official Cars3D files."""

import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from disentangle.data.base import GroundTruthData, Integers
from disentangle.data.official import OfficialFile, refuse_broken
from disentangle.data.pixels import channels_first, shrink

FACTOR_NAMES = ("elevation", "azimuth", "object_type")
ELEVATIONS, AZIMUTHS, OBJECTS = 4, 24, 183
STORED_SIZE, IMAGE_SIZE = 128, 64
STORED_SHAPE = (STORED_SIZE, STORED_SIZE, 3, AZIMUTHS, ELEVATIONS)
PROJECT = (
    "Deep Visual Analogy-Making on Scott Reed's page (nips2015-analogy-data.tar.gz, folder cars)"
)


class Cars3D(GroundTruthData):
    """Renderings of 183 cars: the official pixels, from a local folder.

    Factors: `elevation` 4, `azimuth` 24, `object_type` 183 (in the order of `list.txt`). RGB,
    shrunk from 128 × 128 to 64 × 64 (Lanczos) while the files are read, one by one: 216 MB are kept
    of the 860 MB. No checksum of the unpacked files is published.

    Source: Reed et al., Deep Visual Analogy-Making, 2015; as in Locatello et al., 2019,
    https://arxiv.org/abs/1811.12359.

    Args:
        path: The official folder `cars`, or the one in which it lies.

    Raises:
        FileNotFoundError: If `list.txt` or a file that it names is missing.
        ValueError: If a file is damaged or not of the official format.

    Examples:
        >>> Cars3D(path="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no list.txt at nowhere/list.txt; get it from Deep Visual ...
    """

    def __init__(self, *, path: str | Path) -> None:
        folder = Path(path) / "cars" if (Path(path) / "cars").is_dir() else Path(path)
        files = _find_files(folder)
        super().__init__(
            image_size=IMAGE_SIZE,
            image_channels=3,
            factor_names=FACTOR_NAMES,
            factor_sizes=(ELEVATIONS, AZIMUTHS, len(files)),
        )
        self.paths = tuple(files)
        # A tensor, since torch shares the memory of tensors with spawned workers.
        self._stored = _read_objects(files)

    def _images(self, indices: Integers) -> Tensor:
        return self._stored[torch.from_numpy(indices)]


def _find_files(folder: Path) -> list[Path]:
    """List the files of the objects, in the official order."""
    listing = OfficialFile(name="list.txt", project=PROJECT).locate(folder / "list.txt")
    with refuse_broken(listing, "the list of Cars3D"):
        names = listing.read_text(encoding="utf-8").split()
        if len(names) != OBJECTS or len(set(names)) != OBJECTS:
            raise ValueError(f"it must name {OBJECTS} objects once, got {len(names)} names")
        outside = [name for name in names if Path(name).name != name]
        if outside:
            raise ValueError(f"it must name files of its own folder, got {outside[0]!r}")
    files = [f"{name.removesuffix('.mat')}.mat" for name in names]
    return [OfficialFile(name=each, project=PROJECT).locate(folder / each) for each in files]


def _read_objects(files: list[Path]) -> Tensor:
    """Read all images, uint8 `(N, 3, 64, 64)`, the object varying fastest."""
    size = IMAGE_SIZE
    images = torch.empty((ELEVATIONS * AZIMUTHS, len(files), 3, size, size), dtype=torch.uint8)
    with ThreadPool(min(8, os.cpu_count() or 1)) as pool:
        progress = tqdm(
            pool.imap(_read_object, files),
            desc="reading Cars3D",
            total=len(files),
            delay=2,
            leave=False,
        )
        for number, image in enumerate(progress):
            images[:, number] = image
    return images.flatten(0, 1)  # (4·24, 183, 3, 64, 64) → (4·24·183, 3, 64, 64)


def _read_object(file: Path) -> Tensor:
    """Read the images uint8 `(4·24, 3, 64, 64)` of an object, the azimuth varying fastest."""
    from scipy.io import loadmat, whosmat  # late, since it slows every command down

    with refuse_broken(file, "a Cars3D file"):
        # The header first, so that no array of another size is unpacked.
        found = {name: (shape, kind) for name, shape, kind in whosmat(file)}
        if found.get("im") != (STORED_SHAPE, "uint8"):
            raise ValueError(f"im must be {STORED_SHAPE} of uint8, got {found.get('im')}")
        stored = loadmat(file, variable_names=["im"])["im"]
        views = stored.transpose(4, 3, 0, 1, 2)  # (4, 24, 128, 128, 3)
        flat = views.reshape(-1, STORED_SIZE, STORED_SIZE, 3)  # (4·24, 128, 128, 3)
        return channels_first(np.stack([shrink(view, IMAGE_SIZE) for view in flat]))
