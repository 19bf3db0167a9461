"""A folder with a folder of images for each class."""

from pathlib import Path
from typing import Literal

from disentangle.data.images.decoding import Decoder
from disentangle.data.images.finding import check_folder, find_images
from disentangle.data.images.splitting import choose_split
from disentangle.data.labelled.files import LabelledFiles

SPLITS = ("train", "val", "test")
# What is easily taken for a class and is none.
LIKE_SPLITS = {*SPLITS, "training", "valid", "validation", "testing"}


class ClassFolder(LabelledFiles):
    """Images in a folder for each class, cropped to a square.

    Either `path/CLASS/…`, or `path/SPLIT/CLASS/…` with any of the folders `train`, `val` and
    `test`, such as ImageNet's (`train` and `val`, with a folder `n01440764` … for each class).
    Images may lie at any depth in the folder of a class; one that lies in none is an error.
    Classes are in the order of their names, those of all splits together.

    Without such folders, `train` and `test` share the images out by a hash of each one's name, as
    in `ImageFolder`. Images are read as there, too.

    Args:
        path: The folder.
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        crop: Side of the central square that is kept, in pixels of the file, which must not be
            smaller; by default the largest.
        split: Which images: `train`, `val` or `test`.
        test_fraction: How many of the images are for the test, about, where no folders say so.
        check: Decode every file now. If not, a corrupt one is an error when it is asked for.
        on_corrupt: What a file that cannot be decoded does: `error` raises, `skip` leaves it out.

    Raises:
        FileNotFoundError: If there is no such folder, or none of the split.
        ValueError: If a folder has no images, if an image is in no class, if an image is corrupt
            (or all are, with `skip`), or if an argument is not one of those above.
        OSError: If a folder in it cannot be read.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         Path(folder, "train", name).mkdir(parents=True)
        ...         Image.new("RGB", (80, 60)).save(f"{folder}/train/{name}/0.png")
        ...     images = ClassFolder(path=folder, image_size=32)
        >>> images.labels, images.class_names
        (array([0, 1]), ('cat', 'dog'))
    """

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int,
        image_channels: int = 3,
        crop: int | None = None,
        split: Literal["train", "val", "test"] = "train",
        test_fraction: float = 0.1,
        check: bool = True,
        on_corrupt: Literal["error", "skip"] = "error",
    ) -> None:
        decoder = Decoder(image_size=image_size, image_channels=image_channels, crop=crop)
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        folder = Path(path)
        check_folder(folder)
        splits = [name for name in SPLITS if _folder_names(folder / name)]
        if not splits:
            _refuse_other_splits(folder)
        root = _split_folder(folder, split, splits)
        found = find_images(root)
        roots = [folder / name for name in splits] or [folder]
        names = sorted({name for each in roots for name in _folder_names(each)})
        numbers = {name: number for number, name in enumerate(names)}
        if not splits:
            found = choose_split(found, folder, split, test_fraction)
        super().__init__(
            found,
            [numbers[_class_name(path, root)] for path in found],
            names,
            decoder,
            folder=root,
            check=check,
            on_corrupt=on_corrupt,
        )


def _folder_names(folder: Path) -> list[str]:
    """The names of the folders in a folder; none if there is no such folder."""
    if not folder.is_dir():
        return []
    return [each.name for each in folder.iterdir() if each.is_dir() and each.name[0] != "."]


def _refuse_other_splits(folder: Path) -> None:
    """Raises `ValueError` if a folder that should be of a class has the name of a split."""
    for name in sorted(_folder_names(folder)):
        if name.lower() in LIKE_SPLITS and _folder_names(folder / name):
            known = ", ".join(SPLITS)
            raise ValueError(f"{folder / name} must be called one of {known}, or be a class")


def _split_folder(folder: Path, split: str, splits: list[str]) -> Path:
    """The folder with those of the classes, given the splits that have one."""
    if not splits and split == "val":
        raise ValueError(
            f"split must be 'train' or 'test' where {folder} has no folders of splits, got 'val'"
        )
    if splits and split not in splits:
        raise FileNotFoundError(
            f"no classes in {folder / split}; the splits with classes are {', '.join(splits)}"
        )
    return folder / split if splits else folder


def _class_name(path: Path, root: Path) -> str:
    name, *rest = path.relative_to(root).parts
    if not rest:
        raise ValueError(f"{path} is in no folder of a class, expected {root}/CLASS/{name}")
    return name
