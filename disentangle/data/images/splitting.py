"""Splits of the images in a folder by their names."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePath

SPLITS = ("all", "train", "test")


def choose_split(
    paths: Sequence[Path], folder: Path, split: str, test_fraction: float
) -> list[Path]:
    """Select the images of a folder that belong to a split, in the same order.

    Args:
        paths: Images in the folder.
        folder: The folder.
        split: `all`, `train` or `test`.
        test_fraction: Approximate fraction of the images for the test.

    Raises:
        ValueError: If there is no such split, if it has no images, or if the fraction is not
            between 0 and 1.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction must be between 0 and 1, got {test_fraction!r}")
    if split == "all":
        return list(paths)
    test = split == "test"
    chosen = [p for p in paths if is_for_test(p.relative_to(folder), test_fraction) == test]
    if not chosen:
        raise ValueError(
            f"the split {split!r} of {folder} is empty: it has {len(paths)} images, of which "
            f"about {test_fraction:g} (test_fraction) are for the test"
        )
    return chosen


def is_for_test(path: PurePath, test_fraction: float) -> bool:
    """Return True if a file is for the test, as a pure function of its name.

    So a file stays where it is when others are added, and on every machine. Where the fraction
    grows, files move from training to test only.

    Args:
        path: The file, relative to the folder of the data set.
        test_fraction: Approximate fraction of the files for the test.

    Examples:
        >>> [is_for_test(PurePath("cats", f"{number}.png"), 0.3) for number in range(5)]
        [True, True, False, False, False]
    """
    digest = hashlib.sha256(os.fsencode(path.as_posix())).digest()
    return int.from_bytes(digest[:8]) < test_fraction * 2**64
