"""A folder with a folder of images for each class."""

from pathlib import Path
from typing import Literal

from disentangle.data.images.decoding import Decoder
from disentangle.data.images.finding import (
    check_folder,
    find_images,
    first_image,
    folder_names,
)
from disentangle.data.images.left_out import LeftOut
from disentangle.data.images.splitting import choose_split
from disentangle.data.labelled.files import LabelledFiles
from disentangle.output.text import cut

SPLITS = ("train", "val", "test")
# What is easily taken for a class and is none.
LIKE_SPLITS = {*SPLITS, "training", "valid", "validation", "testing"}


class ClassFolder(LabelledFiles):
    """Images in a folder for each class, cropped to a square.

    Either `path/CLASS/…`, or `path/SPLIT/CLASS/…` with any of the folders `train`, `val` and
    `test`, such as ImageNet's (`train` and `val`, with a folder `n01440764` … for each class).
    Images may lie at any depth in the folder of a class; one that lies in none, or beside the
    folders of splits, is an error. Classes are in the order of their names, those of all splits
    together. A folder that has no images in any split is no class and is left out.

    Without such folders, `train` and `test` share the images out by a hash of each one's name, as
    in `ImageFolder`. Images are found and read as there, too.

    Args:
        path: The folder.
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        crop: Side of the central square that is kept, in pixels of the file, which must not be
            smaller; by default the largest.
        split: Split of the images: `train`, `val` or `test`.
        test_fraction: Approximate fraction of the images for the test, where folders do not decide.
        check: Decode every file now. If not, a corrupt one is an error when it is asked for.
        on_corrupt: Action for a file that cannot be decoded: `error` raises, `skip` leaves it out.

    Attributes:
        paths: The file of each image.
        skipped: The images that were left out.
        left_out: A phrase for each other kind of file or folder that was left out.

    Raises:
        FileNotFoundError: If there is no such folder, or none of the split.
        ValueError: If there are no images, if an image is in no class or beside the folders of
            splits, if an image is corrupt (or all are, with `skip`), or if an argument is not one
            of those above.
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
        folder, left_out = Path(path), LeftOut()
        check_folder(folder)
        splits = [name for name in SPLITS if folder_names(folder / name)]
        _refuse_other_splits(folder)
        if splits:
            _refuse_images_beside(folder, splits, left_out)
        root = _split_folder(folder, split, splits)
        found = find_images(root, left_out)
        others = [folder / name for name in splits if name != split]
        names, empty = _find_classes(root, others, {_class_name(path, root) for path in found})
        numbers = {name: number for number, name in enumerate(names)}
        if not splits:
            found = choose_split(found, folder, split, test_fraction)
        self.left_out = left_out.describe()
        if empty:
            self.left_out += (f"folders without images of their own: {cut(', '.join(empty), 80)}",)
        super().__init__(
            found,
            [numbers[_class_name(path, root)] for path in found],
            names,
            decoder,
            folder=root,
            check=check,
            on_corrupt=on_corrupt,
        )


def _refuse_images_beside(folder: Path, splits: list[str], left_out: LeftOut) -> None:
    """Raise `ValueError` if an image lies outside the folders of splits, in a class perhaps."""
    within = [folder / name for name in SPLITS if (folder / name).is_dir()]
    if (image := first_image(folder, left_out, without=within)) is not None:
        raise ValueError(
            f"{image} lies beside the folder of a split, {folder / splits[0]}: expected "
            f"{folder}/SPLIT/CLASS/{image.name}; a class cannot have the name of a split "
            f"({', '.join(SPLITS)}) and folders in it"
        )


def _refuse_other_splits(folder: Path) -> None:
    """Raise `ValueError` if a folder is named almost like a split, and has folders in it."""
    for name in sorted(folder_names(folder)):
        like_split = name.lower() in LIKE_SPLITS and name not in SPLITS
        if like_split and folder_names(folder / name) and not (folder / name).is_symlink():
            raise ValueError(
                f"rename {folder / name} to one of {', '.join(SPLITS)}; a class with such a name "
                "cannot have folders in it"
            )


def _find_classes(root: Path, others: list[Path], known: set[str]) -> tuple[list[str], list[str]]:
    """Return the names of classes, and of the folders that have no images in any split.

    Args:
        root: The folder of the chosen split.
        others: The folders of the other splits.
        known: The classes with images in the chosen split.
    """
    names = {name for each in (root, *others) for name in folder_names(each)}
    found = {
        name
        for name in names - known
        if any((each / name).is_dir() and first_image(each / name) for each in others)
    }
    return sorted(known | found), sorted(names - known - found)


def _split_folder(folder: Path, split: str, splits: list[str]) -> Path:
    """Return the folder with those of the classes, given the splits that have one."""
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
    name, *rest = path.parts[len(root.parts) :]  # much faster than path.relative_to
    if not rest:
        raise ValueError(f"{path} is in no folder of a class, expected {root}/CLASS/{name}")
    return name
