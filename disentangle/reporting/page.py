"""A report as one HTML file with everything in it."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from string import Template

from disentangle.output.tables import format_cell
from disentangle.output.text import escape_control_characters
from disentangle.reporting.document import Block, Document, Picture, Points, Table, Tables, Text

# What may stand in a column of numbers: 0.5, 0.5 ± 0.1, 0.5 (1 of 2), 0.5 (0.4 to 0.6), 1e-05.
NUMBER = re.compile(r"-?(\d[\d.]*(e[-+]\d+)?|inf|nan)( ± \S+)?( \([^()]* (of|to) [^()]*\))?|")
BREAK = re.compile(r"(?<=[/_.,])(?=[^\W\d])")  # where a long name goes on in the next line
WIDE = 540  # px: figures of more are not squeezed onto a phone


def build_page(document: Document) -> str:
    """The HTML of a report that loads nothing and has no script.

    Names may hold any characters: they are shown as they are.

    Examples:
        >>> from disentangle.reporting.document import Section
        >>> page = build_page(Document("<b>", "today", [Section("A", [Text("x < y")])]))
        >>> "<title>&lt;b&gt;</title>" in page, "<p>x &lt; y</p>" in page, "<b>" in page
        (True, True, False)
    """
    sections, contents = [], []
    for number, section in enumerate(document.sections, start=1):
        title = _escape(section.title)
        contents.append(f'<li><a href="#part-{number}">{title}</a></li>')
        body = "\n".join(_write(block) for block in section.blocks)
        sections.append(f'<section id="part-{number}">\n<h2>{title}</h2>\n{body}\n</section>')
    return Template(_read("page.html")).substitute(
        title=_escape(document.title),
        subtitle=_escape(document.subtitle),
        style=_read("style.css"),
        contents="\n".join(contents),
        sections="\n".join(sections),
    )


def _write(block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{_escape(block.text)}</p>"
    if isinstance(block, Points):
        return f"<ul>{_wrap('li', block.texts)}</ul>"
    if isinstance(block, Picture):
        return _write_picture(block)
    if isinstance(block, Tables):
        return f'<div class="tables">\n{"".join(map(_write_table, block.tables))}</div>'
    return _write_table(block)


def _write_picture(picture: Picture) -> str:
    content = base64.b64encode(picture.content).decode()
    wide = ' class="wide"' if picture.has_text and picture.width > WIDE else ""
    image = (
        f'<img{wide} alt="{_escape(picture.description)}" width="{picture.width}" '
        f'height="{picture.height}" src="data:image/{picture.kind};base64,{content}">'
    )
    caption = f"<figcaption>{_escape(picture.caption)}</figcaption>"
    return f'<figure>\n<div class="scroll">{image}</div>\n{caption}\n</figure>'


def _write_table(table: Table) -> str:
    rows = [[format_cell(cell) for cell in row] for row in table.rows]
    columns = list(zip(*rows, strict=True))[1:]
    kinds = ["", *(' class="number"' if all(map(NUMBER.fullmatch, c)) else "" for c in columns)]
    caption = f"<caption>{_escape(table.caption)}</caption>\n" if table.caption else ""
    header = "".join(
        f'<th scope="col"{kind}>{_breakable(name)}</th>'
        for name, kind in zip(table.header, kinds, strict=True)
    )
    body = "".join(_write_row(row, kinds) for row in rows)
    return (
        f'<div class="scroll"><table>\n{caption}<thead><tr>{header}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def _write_row(texts: Sequence[str], kinds: Sequence[str]) -> str:
    cells = "".join(
        f"<td{kind}>{_escape(text) if kind else _breakable(text)}</td>"
        for text, kind in zip(texts[1:], kinds[1:], strict=True)
    )
    return f'<tr><th scope="row">{_breakable(texts[0])}</th>{cells}</tr>\n'


def _escape(text: str) -> str:
    return html.escape(escape_control_characters(text))


def _breakable(text: str) -> str:
    return BREAK.sub("<wbr>", _escape(text))


def _wrap(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{_escape(text)}</{tag}>" for text in texts)


def _read(name: str) -> str:
    return files("disentangle.reporting").joinpath(name).read_text(encoding="utf-8")
