"""Tables as text for a terminal, Markdown, CSV or LaTeX."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Literal, get_args

from disentangle.output.text import escape_control_characters

Format = Literal["text", "markdown", "csv", "latex"]
FORMATS: tuple[Format, ...] = get_args(Format)
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
}
GAP = "  "  # between columns
LARGE = 1e9  # from here on, numbers are written with an exponent
Cell = str | float | int | None


def format_table(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    kind: Format = "text",
    digits: int = 4,
    width: int | None = None,
) -> str:
    r"""Format a table with a header.

    Control characters are escaped, line breaks included: see `escape_control_characters`.

    Args:
        header: Names of the columns.
        rows: Rows with one cell per column; None is an empty cell. Columns with numbers are aligned
            to the right.
        kind: Output format. CSV has all digits of its numbers.
        digits: Number of digits after the decimal point, except of integers.
        width: Width of the terminal in characters; a wider text table is broken into several, one
            below the other, each with the first column. None breaks nothing.

    Examples:
        >>> print(format_table(["metric", "score"], [["mig", 0.25], ["sap", 1.0]]))
        metric   score
        mig     0.2500
        sap     1.0000
        >>> print(format_table(["metric", "NOG", "OLR"], [["mig", 0.25, 0.5]], width=16))
        metric     NOG
        mig     0.2500
        <BLANKLINE>
        metric     OLR
        mig     0.5000
        >>> print(format_table(["a", "b"], [["x|y", 2]], "markdown"))
        | a | b |
        |---|---:|
        | x\|y | 2 |
        >>> print(format_table(["a", "b"], [["x, y", 2.5]], "csv"))
        a,b
        "x, y",2.5
        >>> print(format_table(["a"], [["50_%"]], "latex"))
        \begin{tabular}{l}
        \hline
        a \\
        \hline
        50\_\% \\
        \hline
        \end{tabular}
    """
    if kind == "csv":
        stream = io.StringIO()
        plain = [
            [escape_control_characters(c) if isinstance(c, str) else c for c in r]
            for r in [header, *rows]
        ]
        csv.writer(stream, lineterminator="\n").writerows(plain)
        return stream.getvalue().rstrip("\n")
    right = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    texts = [[format_cell(cell, digits) for cell in row] for row in [header, *rows]]
    if kind == "markdown":
        return _format_markdown(texts, right)
    return _format_latex(texts, right) if kind == "latex" else _format_text(texts, right, width)


def format_cell(cell: Cell, digits: int = 4) -> str:
    """Format a cell as `format_table` does.

    Examples:
        >>> [format_cell(cell) for cell in (0.25, 0.00003, 123456.0, 1e30, 7, None)]
        ['0.2500', '3.0e-05', '123456.0000', '1.0000e+30', '7', '']
    """
    if cell is None:
        return ""
    if not isinstance(cell, float):
        return escape_control_characters(str(cell))
    if math.isfinite(cell) and abs(cell) >= LARGE:
        return f"{cell:.{digits}e}"
    # a fixed number of digits would show only zeros for a smaller number
    return f"{cell:.{digits}f}" if cell == 0 or abs(cell) >= 10**-digits else f"{cell:.1e}"


def _format_text(texts: Sequence[Sequence[str]], right: Sequence[bool], width: int | None) -> str:
    columns = []
    for column, at_right in zip(zip(*texts, strict=True), right, strict=True):
        most = max(map(len, column))
        columns.append([text.rjust(most) if at_right else text.ljust(most) for text in column])
    widths = [len(column[0]) for column in columns]
    tables = []
    for part in _break(widths, width):
        lines = zip(*(columns[i] for i in part), strict=True)
        tables.append("\n".join(GAP.join(line).rstrip() for line in lines))
    return "\n\n".join(tables)


def _break(widths: Sequence[int], most: int | None) -> list[list[int]]:
    """Return the columns of each table: the first, and at least one more, however wide."""
    parts, wide = [[0]], widths[0]
    for i in range(1, len(widths)):
        wide += len(GAP) + widths[i]
        if most is not None and wide > most and len(parts[-1]) > 1:
            parts.append([0])
            wide = widths[0] + len(GAP) + widths[i]
        parts[-1].append(i)
    return parts


def _format_markdown(texts: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    rows = ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in texts]
    rule = "|" + "|".join("---:" if at_right else "---" for at_right in right) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])


def _format_latex(texts: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    table = str.maketrans(LATEX_SPECIAL)
    rows = [" & ".join(text.translate(table) for text in row) + r" \\" for row in texts]
    columns = "".join("r" if at_right else "l" for at_right in right)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\hline", rows[0], r"\hline", *rows[1:]]
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])
