"""Damaged and hostile files, and what tests ask of whoever reads them."""

import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

MOST_MEMORY = 2**20  # kB that a reader may take
# What fields of sizes, offsets and counts are likely to be checked against, or not.
ODD_NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**62, 2**64 - 1]


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """Any bytes, or those of a sound file with some changed, cut out, repeated or put in."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    content = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        # Headers break more than what follows them.
        last = draw(st.sampled_from([64, 512, len(content), len(content)]))
        place = draw(st.integers(0, max(0, min(last, len(content)) - 1)))
        place = draw(st.sampled_from([place, max(0, len(content) - 1 - place)]))
        kind = draw(st.sampled_from(["flip", "number", "noise", "cut", "end", "repeat", "insert"]))
        length = draw(st.integers(1, 64))
        if kind == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            width, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from("lb"))
            number = draw(st.sampled_from(ODD_NUMBERS)) % 2 ** (8 * width)
            name = "little" if order == "l" else "big"
            content[place : place + width] = number.to_bytes(width, name)
        elif kind == "noise":
            content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "end":
            del content[place:]
        elif kind == "repeat":
            content[place:place] = content[place : place + length]
        else:
            content[place:place] = draw(st.binary(max_size=length))
    return bytes(content)


def read_or_refuse(read: Callable[[], object]) -> bool:
    """Whether something is read; if not, it must be refused in words, in bounded memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    complaint = None
    try:
        read()
    except (ValueError, OSError) as error:
        complaint = str(error)
    assert complaint is None or complaint.strip()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MOST_MEMORY, f"{grown} kB were taken"
    return complaint is None


class Trap:
    """A pickle of it makes a folder when it is unpickled without care.

    Args:
        folder: The one to make.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@contextmanager
def trap(folder: Path) -> Iterator[Trap]:
    """A trap; it must work, and be avoided by the block."""
    caught = Trap(folder / "trapped")
    pickle.loads(pickle.dumps(caught))
    assert caught.folder.is_dir()
    caught.folder.rmdir()
    yield caught
    assert not caught.folder.exists()
