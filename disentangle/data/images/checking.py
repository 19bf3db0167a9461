"""Check of the images of a data set: find those that can be decoded."""

import os
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from disentangle.data.base import Integers


def find_decodable(
    problem: Callable[[int], str | None],
    count: int,
    *,
    place: Path,
    check: bool,
    on_corrupt: str,
) -> Integers:
    """Find the indices `(M,)` of the images to keep, in increasing order.

    Args:
        problem: Describes the problem of the image at an index, or returns `None`; called from many
            threads.
        count: Number of images.
        place: Folder of the images, for messages.
        check: Whether to decode every image now; if not, all are kept.
        on_corrupt: Action for an image with a problem: `error` raises, `skip` leaves it out.

    Raises:
        ValueError: If an image has a problem (or all have, with `skip`), if `on_corrupt` is
            neither, or if images are to be skipped without being checked.

    Examples:
        >>> problems = {1: "cannot decode b.png: no image"}
        >>> find_decodable(problems.get, 3, place=Path("x"), check=True, on_corrupt="skip")
        array([0, 2])
    """
    if on_corrupt not in ("error", "skip"):
        raise ValueError(f"on_corrupt must be 'error' or 'skip', got {on_corrupt!r}")
    if not check and on_corrupt == "skip":
        raise ValueError("check must be true for on_corrupt 'skip', which decodes every file")
    if not check:
        return np.arange(count)
    sound = np.ones(count, dtype=bool)
    with ThreadPool(min(32, os.cpu_count() or 1)) as pool:
        problems = pool.imap(problem, range(count), chunksize=16)
        progress = tqdm(problems, desc="checking images", total=count, delay=2, leave=False)
        for index, found in enumerate(progress):
            if found and on_corrupt == "error":
                raise ValueError(f"{found} (--data.on_corrupt skip leaves such files out)")
            sound[index] = not found
    if not sound.any():
        raise ValueError(f"no image in {place} can be decoded, all {count} are corrupt")
    return np.flatnonzero(sound)
