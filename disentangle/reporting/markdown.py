"""A report as Markdown, with its pictures as files beside it."""

import re
from collections.abc import Iterator
from urllib.parse import quote

from disentangle.output.tables import format_table
from disentangle.output.text import escape_control_characters
from disentangle.reporting.document import Block, Document, Picture, Points, Table, Tables, Text

# An underscore inside a word is one: `log_every` stays readable in the source.
MARKUP = re.compile(r"[\\`*\[\]<>$~]|(?<!\w)_|_(?!\w)")
STRUCTURE = re.compile(r"^([-+#=:]|\d+[.)](?= |$))")  # at the start of a paragraph


def build_markdown(document: Document, folder: str) -> str:
    r"""The text of a report, in GitHub's Markdown.

    Names may hold any characters: they are shown as they are.

    Args:
        document: The report.
        folder: Beside the text, in which `picture_files` are.

    Examples:
        >>> from disentangle.reporting.document import Section
        >>> section = Section("Scores", [Text("of <b>"), Table(["a_b", "_c_"], [["x|y", 1]])])
        >>> print(build_markdown(Document("Title", "today", [section]), "files"))
        # Title
        <BLANKLINE>
        today
        <BLANKLINE>
        ## Scores
        <BLANKLINE>
        of \<b\>
        <BLANKLINE>
        | a_b | \_c\_ |
        |---|---:|
        | x\|y | 1 |
        <BLANKLINE>
    """
    parts = [f"# {escape(document.title)}", escape_paragraph(document.subtitle)]
    for section in document.sections:
        parts.append(f"## {escape(section.title)}")
        for block in section.blocks:
            parts += _write(block, quote(folder))
    return "\n\n".join(parts) + "\n"


def picture_files(document: Document) -> dict[str, bytes]:
    """The contents of the pictures, by the names of their files."""
    return {
        f"{block.name}.{block.kind}": block.content
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Picture)
    }


def escape(text: str) -> str:
    r"""A text on one line in which no character has a meaning of its own.

    Examples:
        >>> print(escape("*a*\n<script> snake_case & _b_"))
        \*a\* \<script\> snake_case &amp; \_b\_
    """
    line = escape_control_characters(" ".join(text.split())).replace("&", "&amp;")
    return MARKUP.sub(lambda match: "\\" + match[0], line)


def escape_paragraph(text: str) -> str:
    r"""As `escape`, where a paragraph begins: no heading and no list.

    Examples:
        >>> print(escape_paragraph("- a"), escape_paragraph("1. b"), escape_paragraph("1.5"))
        \- a 1\. b 1.5
    """
    return STRUCTURE.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", escape(text))


def _write(block: Block, folder: str) -> Iterator[str]:
    if isinstance(block, Text):
        yield escape_paragraph(block.text)
    elif isinstance(block, Points):
        yield "\n".join(f"- {escape_paragraph(text)}" for text in block.texts)
    elif isinstance(block, Picture):
        target = f"{folder}/{block.name}.{block.kind}"
        yield f"![{escape(block.description)}]({target})"
        yield escape_paragraph(block.caption)
    else:
        for table in block.tables if isinstance(block, Tables) else [block]:
            if table.caption:
                yield f"**{escape(table.caption)}**"
            yield _write_table(table)


def _write_table(table: Table) -> str:
    rows = [[escape(cell) if isinstance(cell, str) else cell for cell in row] for row in table.rows]
    return format_table([escape(name) for name in table.header], rows, "markdown")
