"""Files and folders that data sets leave out, and the line that names them."""

from collections import Counter
from pathlib import PurePath

from disentangle.data.base import ImageData
from disentangle.output.text import cut, escape_control_characters

MOST = 4  # names in a phrase


class LeftOut:
    """Counts of the files and folders that a search for images leaves out.

    Attributes:
        files: Number of files that are not read as images, by extension.
        folders: Number of hidden and system folders, by name.
        hidden: Number of hidden files.

    Examples:
        >>> left_out = LeftOut()
        >>> for name in ("a.txt", "b.TXT"):
        ...     left_out.add_file(name)
        >>> left_out.folders.update(["@eaDir"])
        >>> left_out.describe()
        ('2 unsupported files (2 .txt)', '1 hidden or system folder (1 @eaDir)')
    """

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.folders: Counter[str] = Counter()
        self.hidden = 0

    def add_file(self, name: str) -> None:
        """Count a file that is hidden or no image."""
        if name.startswith("."):
            self.hidden += 1
        else:
            self.files[PurePath(name).suffix.lower()] += 1

    def describe(self) -> tuple[str, ...]:
        """Return a phrase for each kind that is left out."""
        kinds = (("unsupported file", self.files), ("hidden or system folder", self.folders))
        phrases = [f"{_count(n.total(), kind)} ({_list(n)})" for kind, n in kinds if n]
        if self.hidden:
            phrases.append(_count(self.hidden, "hidden file"))
        return tuple(phrases)


def describe_left_out(data: ImageData) -> str:
    """Return a line that names what a data set leaves out; empty if it is nothing.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from disentangle.data import ImageFolder
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (80, 60)).save(f"{folder}/black.png")
        ...     _ = Path(folder, "about.txt").write_text("a black image")
        ...     describe_left_out(ImageFolder(path=folder, image_size=32))
        'left out: 1 unsupported file (1 .txt)'
    """
    phrases = list(data.left_out)
    if data.skipped:
        total = len(data) + len(data.skipped)
        count = f"{len(data.skipped)} of {_count(total, 'image')}"
        phrases.insert(0, f"{count}, which cannot be read, such as {data.skipped[0]}")
    return escape_control_characters(f"left out: {'; '.join(phrases)}") if phrases else ""


def _count(number: int, kind: str) -> str:
    return f"{number} {kind}{'s' * (number != 1)}"


def _list(counts: Counter[str]) -> str:
    """List the most frequent names, each with its number."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = [f"{number} {cut(name, 20) or 'without extension'}" for name, number in order[:MOST]]
    return ", ".join(names) + ", …" * (len(order) > MOST)
