"""The bar of what takes long."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class Progress:
    """Counts images, trees or epochs on bars; on a terminal only, and in one process.

    Args:
        shown: Whether there may be a bar at all.

    Examples:
        >>> progress = Progress(shown=False)
        >>> with progress.show("encoding", images=2):
        ...     progress.advance(2)
    """

    def __init__(self, *, shown: bool) -> None:
        self.hidden = None if shown else True  # None: unless it is a terminal
        self.title = ""
        self.bars: dict[str, Any] = {}  # by what they count

    @contextmanager
    def show(self, title: str, images: int | None) -> Iterator[None]:
        """Has a bar of so many images while its body runs, if any, and those that `follow` adds."""
        self.title = title
        if images is not None:
            self._open("image", images)
        try:
            yield
        finally:
            for bar in reversed(self.bars.values()):
                bar.close()
            self.bars = {}

    def advance(self, images: int) -> None:
        """Counts images, if there is a bar of them."""
        if "image" in self.bars:
            self.bars["image"].update(images)

    def follow(self, done: int, total: int, *, unit: str) -> None:
        """Shows how many trees or epochs of all are done."""
        if unit not in self.bars:
            self._open(unit, total)
        self.bars[unit].update(done - self.bars[unit].n)

    def _open(self, unit: str, total: int) -> None:
        self.bars[unit] = tqdm(
            total=total, desc=self.title, unit=unit, leave=False, disable=self.hidden
        )
