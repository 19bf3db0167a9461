"""Parts of a report, independent of the format that it is written in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from disentangle.output.tables import Cell


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        text: As it is to be read, without any markup.
    """

    text: str


@dataclass(frozen=True)
class Points:
    """Short remarks below each other.

    Attributes:
        texts: As they are to be read.
    """

    texts: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table whose rows begin with a name.

    Attributes:
        header: Names of the columns.
        rows: Rows with as many cells as the header.
        caption: Above the table; empty for none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


@dataclass(frozen=True)
class Tables:
    """Small tables that stand side by side where there is room.

    Attributes:
        tables: In their order.
    """

    tables: Sequence[Table]


@dataclass(frozen=True)
class Picture:
    """A picture with its caption.

    Attributes:
        name: For a file, without ending: small letters, digits and hyphens; unique in the report.
        content: Content of the file.
        kind: Its ending, `png` or `webp`.
        width: On a screen, in CSS pixels.
        height: Likewise.
        description: What it shows, for those who do not see it.
        caption: Below the picture.
        has_text: Whether there is text in it, which must not become too small to read.
    """

    name: str
    content: bytes
    kind: str
    width: int
    height: int
    description: str
    caption: str
    has_text: bool = True


Block: TypeAlias = Text | Points | Table | Tables | Picture


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Title of the section; unique in the report.
        blocks: What is in it.
    """

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: Above everything.
        subtitle: Below the title: when and with what it was made.
        sections: Its parts.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
