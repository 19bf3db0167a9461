"""Figures of curves over training steps, of bars and of heat maps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle
from textwrap import fill
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogFormatterSciNotation

from disentangle.output.text import escape_control_characters

# Okabe and Ito, Color universal design, 2008, https://jfly.uni-koeln.de/color/: distinguishable
# with any colour vision. Yellow is left out: it is too faint for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Dashes keep both of two lines that coincide visible.
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (2, 1.5)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (1, 2)),
    (0, (9, 3)),
    (0, (4, 1, 1, 1, 1, 1)),
)
# The first styles differ in both colour and dashes; the others combine each colour with the other
# dashes.
LINE_STYLES: list[dict[str, Any]] = [
    {"color": COLOURS[i], "linestyle": DASHES[(i + turn) % len(DASHES)]}
    for turn in range(len(DASHES))
    for i in range(len(COLOURS))
]
COLUMNS = 3  # panels side by side
# Inches.
PANEL = (3.6, 2.8)
NARROWEST = 5.5
HANDLE, LETTER = 0.7, 0.085  # widths of the handle and of a character of a legend entry
LINE = 0.21  # height of a line of the legend, and of a title after its first
FEW = 3  # most entries of a legend with a single column
MARGIN = 0.4
TITLE = 36  # characters per line of the title of a panel
ENTRY = 60  # characters per line of a legend entry
LONGEST, START = 240, 40  # characters of a name, and of its start when its middle is left out
BAR = 0.26  # height of a bar, with the space to the next
BARS = 5  # width of the bars, without their labels
CELL, LEAST = (0.3, 0.8), (1.0, 3.2)  # height and width of a cell, and least ones of a heat map
DPI = 150
LEAST_RATIO = 3  # of the limits of a logarithmic axis
FULL_RATIO = 10  # below this ratio, a logarithmic axis has lines between the powers of ten
BELOW = 0.98  # lower limit of an axis, as a share of the least possible value: no line is clipped
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.4,
}


class Curve(NamedTuple):
    """Curve over training steps, with a band around it.

    Attributes:
        label: Legend entry; curves with the same label have the same style in every panel.
        steps: Steps `(T,)`, ascending.
        middle: Values `(T,)`, NaN at gaps.
        lowest: Lower edge of the band `(T,)`; equal to `middle` for a single run.
        highest: Upper edge of the band `(T,)`.
    """

    label: str
    steps: np.ndarray
    middle: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray


def draw_curves(
    panels: Mapping[str, Sequence[Curve]],
    *,
    x_label: str,
    y_label: str,
    logarithmic: bool,
    least: float | None = None,
    shared: bool = True,
    columns: int = COLUMNS,
    order: Sequence[str] = (),
) -> Figure:
    """Draw a panel of curves for each title, and a legend above.

    Args:
        panels: Curves by the title of their panel, at least one.
        x_label: Label of the horizontal axis, below the panels.
        y_label: Label of the vertical axis, beside the panels.
        logarithmic: Use a logarithmic vertical axis.
        least: Least possible value, below which the vertical axis does not go.
        shared: Give all panels the same vertical scale.
        columns: Largest number of panels side by side.
        order: Labels that are assigned line styles first, so that several figures share them.

    Returns:
        Figure outside pyplot's global state, without a window.

    Examples:
        >>> line = np.array([1.0, 2.0])
        >>> curve = Curve("NOG", np.array([100, 200]), line, line, line)
        >>> figure = draw_curves({"U": [curve]}, x_label="step", y_label="1", logarithmic=True)
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['NOG']
    """
    with _own_style():
        styles = _choose_styles(panels, order)
        titles = [_wrap(title, TITLE) for title in panels]
        figure, grid, middle = _make_panels(titles, styles, columns, shared=shared)
        for axes, title, curves in zip(grid, titles, panels.values(), strict=True):
            axes.set_title(_as_text(title))
            for curve in curves:
                _draw_curve(axes, curve, styles[curve.label])
        grid[0].xaxis.set_major_formatter(EngFormatter(sep=""))  # 100k
        if logarithmic:
            for axes in grid[:1] if shared else grid:
                _make_logarithmic(axes, least)
            for axes in grid:
                low, high = axes.get_ylim()
                axes.grid(visible=high < FULL_RATIO * low, which="minor", axis="y")
        figure.supxlabel(x_label, fontsize="medium")
        figure.supylabel(y_label, y=middle, fontsize="medium")
        return figure


def draw_bars(
    names: Sequence[str],
    values: np.ndarray,
    *,
    errors: np.ndarray | None = None,
    x_label: str,
    largest: float = 0.0,
) -> Figure:
    """Draw a horizontal bar from zero for each value, with the value beside it.

    Args:
        names: Labels of the `N` bars, from the top.
        values: Non-negative values `(N,)`; a non-finite one is written without a bar.
        errors: Half-lengths of the error bars, `(N,)`; a non-finite one draws none.
        x_label: Label of the horizontal axis.
        largest: Value that the axis includes as well, to give several figures the same scale.

    Examples:
        >>> figure = draw_bars(["a", "b"], np.array([0.5, np.nan]), x_label="1")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['0.5', 'nan']
    """
    heights = np.arange(len(names))
    finite = np.where(np.isfinite(values), values, 0.0)
    whiskers = np.zeros_like(finite) if errors is None else np.nan_to_num(errors, posinf=0.0)
    with _own_style():
        size = (BARS + LETTER * max(map(len, names)), BAR * len(names) + 2 * MARGIN)
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        axes.barh(heights, finite, height=0.7, color=COLOURS[0])
        if whiskers.any():
            axes.errorbar(finite, heights, xerr=whiskers, fmt="none", ecolor="black", elinewidth=1)
        for height, value, end in zip(heights, values, finite + whiskers, strict=True):
            axes.annotate(
                f"{value:.2g}", (end, height), (4, 0), textcoords="offset points", va="center"
            )
        axes.set_yticks(heights, [_as_text(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        most = max((finite + whiskers).max(), largest) or 1.0
        axes.set_xlim(0, 1.15 * most)  # room for the number beside the longest bar
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(x_label)
    return figure


def draw_heat_map(
    matrix: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Draw a heat map of a non-negative matrix, with the number in each cell.

    Args:
        matrix: Shape `(K, F)`; cells with NaN stay blank.
        rows: Labels of the `K` rows.
        columns: Labels of the `F` columns.
        title: Title of the figure.

    Examples:
        >>> figure = draw_heat_map(np.eye(2), rows=["a", "b"], columns=["x", "y"], title="1")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['1.00', '0', '0', '1.00']
    """
    height, width = (max(CELL[i] * n, LEAST[i]) for i, n in enumerate(matrix.shape))
    size = (width + LETTER * max(map(len, rows)) + 2 * MARGIN, height + 2 * MARGIN)
    with _own_style():
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        shown = np.ma.masked_invalid(matrix)
        largest = float(shown.max()) if shown.count() else 0.0
        axes.imshow(shown, cmap="Blues", vmin=0, vmax=largest or 1.0, aspect="auto")
        axes.set_xticks(range(len(columns)), [_as_text(name) for name in columns])
        axes.set_yticks(range(len(rows)), [_as_text(name) for name in rows])
        axes.tick_params(length=0)
        axes.set_title(_as_text(title), wrap=True)
        for (row, column), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                colour = "white" if value > 0.6 * largest else "black"
                label = "0" if value == 0 else f"{value:.2f}"
                axes.text(column, row, label, ha="center", va="center", color=colour)
    return figure


def encode_figure(figure: Figure, kind: str) -> bytes:
    """Return the content of an image file of a figure.

    Args:
        figure: Figure, such as `draw_curves` returns.
        kind: File format, such as `png`, `pdf` or `svg`.
    """
    buffer = BytesIO()
    with _own_style():
        figure.savefig(buffer, format=kind)
    return buffer.getvalue()


@contextmanager
def _own_style() -> Iterator[None]:
    """Use the style of this module instead of the user's matplotlibrc, which could be illegible."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _choose_styles(
    panels: Mapping[str, Sequence[Curve]], order: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return the colour and dashes of each label that is drawn."""
    drawn = dict.fromkeys(curve.label for curves in panels.values() for curve in curves)
    labels = dict.fromkeys([*order, *drawn])
    styles = zip(labels, cycle(LINE_STYLES), strict=False)
    return {label: style for label, style in styles if label in drawn}


def _make_panels(
    titles: Sequence[str], styles: Mapping[str, dict[str, Any]], columns: int, *, shared: bool
) -> tuple[Figure, np.ndarray, float]:
    """Return a figure with a legend, its panels, and the relative height of their middle."""
    count = len(titles)
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    labels = [_wrap(label, ENTRY) for label in styles]
    entry = HANDLE + LETTER * max(len(line) for label in labels for line in label.split("\n"))
    width = max(PANEL[0] * columns, NARROWEST, entry * (1 if len(styles) <= FEW else 2))
    legend_columns = int(width / entry)
    lines = np.array_split([_count_lines(label) for label in labels], legend_columns)
    panel = PANEL[1] + LINE * (max(map(_count_lines, titles)) - 1)
    below = panel * rows + MARGIN
    height = below + LINE * max(column.sum() for column in lines)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=shared, squeeze=False).ravel()
    for above, axes in enumerate(grid[count:], start=count - columns):
        axes.set_visible(False)
        grid[above].tick_params(labelbottom=True)
    handles = [
        Line2D([], [], label=_as_text(label), **style)
        for label, style in zip(labels, styles.values(), strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=legend_columns, frameon=False)
    return figure, grid[:count], below / 2 / height


def _draw_curve(axes: Axes, curve: Curve, style: dict[str, Any]) -> None:
    axes.plot(curve.steps, curve.middle, **style)
    finite = np.pad(np.isfinite(curve.middle), 1)
    alone = finite[1:-1] & ~finite[:-2] & ~finite[2:]  # between gaps, where no line would show
    axes.plot(curve.steps[alone], curve.middle[alone], ".", color=style["color"])
    if not np.array_equal(curve.lowest, curve.highest, equal_nan=True):
        axes.fill_between(
            curve.steps, curve.lowest, curve.highest, color=style["color"], alpha=0.2, linewidth=0
        )


class PlainLogFormatter(LogFormatterSciNotation):
    """Log formatter that writes 0.02 for `2 × 10⁻²` and 300 for `3 × 10²`."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return the label of a tick, empty for an unlabelled one."""
        text = super().__call__(x, pos)
        return f"{x:g}" if text and 1e-3 < x < 1e5 else text


def _make_logarithmic(axes: Axes, least: float | None) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < LEAST_RATIO * low:
        # A wide range keeps noise in the third digit from looking like a result.
        low, high = low / LEAST_RATIO**0.25, low * LEAST_RATIO**0.75
    if least is not None and low < least:
        low = BELOW * least
        high = max(high, LEAST_RATIO * low)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(PlainLogFormatter())
    axes.yaxis.set_minor_formatter(
        PlainLogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5))
    )


def _wrap(name: str, width: int) -> str:
    """Wrap a name to lines of a width, and leave out the middle of a very long one."""
    name = escape_control_characters(name)
    if len(name) > LONGEST:
        name = f"{name[:START]}…{name[START + 1 - LONGEST :]}"
    return fill(name, width)


def _count_lines(text: str) -> int:
    return text.count("\n") + 1


def _as_text(lines: str) -> str:
    """Escape dollars, which matplotlib would read as formulas, and non-printable characters."""
    return "\n".join(map(escape_control_characters, lines.split("\n"))).replace("$", r"\$")
