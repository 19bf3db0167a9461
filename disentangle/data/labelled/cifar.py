"""The official CIFAR-10 and CIFAR-100 files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from disentangle.data.labelled.array import LabelledArray
from disentangle.data.labelled.plain_pickle import load_plain
from disentangle.data.official import OfficialFile, official_folder, refuse_broken

SPLITS = ("train", "test")
SHAPE = (3, 32, 32)
PROJECT = "The CIFAR datasets on Alex Krizhevsky's page (version for Python), and unpack it"


class _CIFAR(LabelledArray):
    """Base of CIFAR-10 and CIFAR-100.

    Attributes:
        official: The class of torchvision that knows the names and checksums of the files.
        label_key: Key of the labels in the files.
    """

    official: ClassVar[str]
    label_key: ClassVar[str]

    def __init__(
        self,
        *,
        path: str | Path,
        split: Literal["train", "test"] = "train",
        image_size: int = 32,
        verify: bool = True,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        import torchvision.datasets  # late, since it slows every command down

        known = getattr(torchvision.datasets, self.official)
        folder = official_folder(path, known.base_folder)
        listed = known.train_list if split == "train" else known.test_list
        batches = [
            _load(folder, name, md5, verify, lambda batch: _unpack(batch, self.label_key))
            for name, md5 in listed
        ]
        pixels, labels = zip(*batches, strict=True)
        meta = known.meta
        names = _load(
            folder,
            meta["filename"],
            meta["md5"],
            verify,
            lambda content: _unpack_names(content, meta["key"]),
        )
        super().__init__(
            torch.from_numpy(np.concatenate(pixels)),
            np.concatenate(labels),
            names,
            image_size=image_size,
        )
        self.paths = tuple(folder / name for name, _ in listed)


class CIFAR10(_CIFAR):
    """60,000 photographs of 10 kinds of animals and vehicles, RGB, 32 × 32, from local files.

    50,000 for training and 10,000 for the test. All are held in memory: 154 MB for training.

    The files are pickles, which may run anything; only plain values and arrays are read from them.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. The checksums
    are torchvision's.

    Args:
        path: The official folder `cifar-10-batches-py`, or the one in which it lies.
        split: Split of the images: `train` or `test`.
        image_size: Height and width to bring the images to, in pixels.
        verify: Whether the files must have the checksums of the official ones.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is damaged or not of the official format, or an argument is not one of
            those above.

    Examples:
        >>> CIFAR10(path="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no data_batch_1 at nowhere/data_batch_1; get it from The CIFAR ...
    """

    official = "CIFAR10"
    label_key = "labels"


class CIFAR100(_CIFAR):
    """60,000 photographs of 100 kinds of things, RGB, 32 × 32, from local files.

    50,000 for training and 10,000 for the test; otherwise as `CIFAR10`. The classes are the fine
    ones.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. The checksums
    are torchvision's.

    Args:
        path: The official folder `cifar-100-python`, or the one in which it lies.
        split: Split of the images: `train` or `test`.
        image_size: Height and width to bring the images to, in pixels.
        verify: Whether the files must have the checksums of the official ones.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If one is damaged or not of the official format, or an argument is not one of
            those above.

    Examples:
        >>> CIFAR100(path="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no train at nowhere/train; get it from The CIFAR datasets ...
    """

    official = "CIFAR100"
    label_key = "fine_labels"


def _load(folder: Path, name: str, md5: str, verify: bool, unpack: Callable[[Any], Any]) -> Any:
    """Load an official file and apply `unpack` to its content."""
    official = OfficialFile(name=name, project=PROJECT, checksum=f"md5:{md5}")
    file = official.locate(folder / name)
    with refuse_broken(file, "a CIFAR file"):
        if verify:
            official.verify(file)
        return unpack(load_plain(file))


def _unpack(batch: Any, label_key: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Return the images `(N, 3, 32, 32)` and labels `(N,)` of a file."""
    pixels, labels = np.asarray(_get(batch, "data")), np.asarray(_get(batch, label_key))
    expected = (len(labels), np.prod(SHAPE))
    if pixels.dtype != np.uint8 or pixels.shape != expected:
        raise ValueError(f"data must be uint8 {expected}, got {pixels.dtype} {pixels.shape}")
    return pixels.reshape(-1, *SHAPE), labels  # (N, 3072) → (N, 3, 32, 32)


def _unpack_names(content: Any, key: str) -> list[str]:
    """Return the names of the classes in a file."""
    names = _get(content, key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{key} must be a list of names, got {type(names).__name__}")
    return names


def _get(content: Any, key: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"it must hold a dict with {key!r}")
    return content[key]
