"""Figures: panels of curves over training steps with one legend, and heat maps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import cycle
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogFormatterSciNotation

# Okabe and Ito, Color universal design, 2008, https://jfly.uni-koeln.de/color/: told apart with any
# colour vision. Yellow is left out, too faint for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Dashes too: of two lines that coincide, one shows through the other.
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2)),
    (0, (2, 1.5)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (1, 2)),
    (0, (9, 3)),
    (0, (4, 1, 1, 1, 1, 1)),
)
# The first of each are all different; then each colour comes with the other dashes.
LOOKS: list[dict[str, Any]] = [
    {"color": COLOURS[i], "linestyle": DASHES[(i + turn) % len(DASHES)]}
    for turn in range(len(DASHES))
    for i in range(len(COLOURS))
]
COLUMNS = 3  # panels side by side
# Inches.
PANEL = (3.6, 2.8)
NARROWEST = 5.5
HANDLE, LETTER = 0.7, 0.085  # of an entry of the legend, with room to spare
LINE = 0.21  # of the legend
FEW = 3  # entries of a legend that is a single column
MARGIN = 0.4
CELL, LEAST = (0.3, 0.8), (1.0, 3.2)  # height and width of a cell and of a heat map
DPI = 150
LEAST_RATIO = 3  # of the ends of a logarithmic axis
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
    """A line over steps, with the range that it stands for.

    Attributes:
        label: For the legend; curves of the same label have the same colour in every panel.
        steps: `(T,)`, ascending.
        middle: `(T,)`, not a number where there is a gap.
        lowest: `(T,)`, lower edge of the band; the line itself if it stands for one run.
        highest: `(T,)`, upper edge.
    """

    label: str
    steps: np.ndarray
    middle: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray


def draw_curves(
    panels: Mapping[str, Sequence[Curve]], *, x_label: str, y_label: str, logarithmic: bool
) -> Figure:
    """Draws a panel of curves for each title, all on the same scale, and a legend above.

    Args:
        panels: Curves by the title of their panel, at least one.
        x_label: Below the panels of the last row.
        y_label: Beside the first panel of each row.
        logarithmic: Whether the vertical axis is.

    Returns:
        A figure that no window and no global state of matplotlib knows.

    Examples:
        >>> line = np.array([1.0, 2.0])
        >>> curve = Curve("NOG", np.array([100, 200]), line, line, line)
        >>> figure = draw_curves({"U": [curve]}, x_label="step", y_label="1", logarithmic=True)
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['NOG']
    """
    with _own_style():
        return _draw(panels, x_label, y_label, logarithmic)


def draw_heat_map(
    matrix: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Draws a matrix of numbers from zero up as shades, with the numbers on them.

    Args:
        matrix: Shape `(K, F)`; what is not a number stays blank.
        rows: The K names.
        columns: The F names.
        title: Above.

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
    """The content of a file with a figure.

    Args:
        figure: As from `draw_curves`.
        kind: Such as `png`, `pdf` or `svg`.
    """
    buffer = BytesIO()
    with _own_style():
        figure.savefig(buffer, format=kind)
    return buffer.getvalue()


@contextmanager
def _own_style() -> Iterator[None]:
    """Keeps what the user's matplotlibrc says from making a figure illegible."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def _draw(
    panels: Mapping[str, Sequence[Curve]], x_label: str, y_label: str, logarithmic: bool
) -> Figure:
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    labels = dict.fromkeys(curve.label for curves in panels.values() for curve in curves)
    looks = dict(zip(labels, cycle(LOOKS), strict=False))
    entry = HANDLE + LETTER * max(map(len, labels))
    width = max(PANEL[0] * columns, NARROWEST, entry * (1 if len(labels) <= FEW else 2))
    legend_columns = int(width / entry)
    legend_rows = math.ceil(len(labels) / legend_columns)
    size = (width, PANEL[1] * rows + MARGIN + LINE * legend_rows)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (title, curves) in zip(grid, panels.items(), strict=False):
        axes.set_title(_as_text(title))
        for curve in curves:
            _draw_curve(axes, curve, looks[curve.label])
    for below, axes in enumerate(grid[len(panels) :], start=len(panels) - columns):
        axes.set_visible(False)
        grid[below].tick_params(labelbottom=True)
    grid[0].xaxis.set_major_formatter(EngFormatter(sep=""))  # 100k
    if logarithmic:
        _make_logarithmic(grid[0])
    figure.supxlabel(x_label, fontsize="medium")
    figure.supylabel(y_label, fontsize="medium")
    handles = [Line2D([], [], label=_as_text(label), **look) for label, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=legend_columns, frameon=False)
    return figure


def _draw_curve(axes: Axes, curve: Curve, look: dict[str, Any]) -> None:
    axes.plot(curve.steps, curve.middle, **look)
    finite = np.pad(np.isfinite(curve.middle), 1)
    alone = finite[1:-1] & ~finite[:-2] & ~finite[2:]  # between gaps, where no line would show
    axes.plot(curve.steps[alone], curve.middle[alone], ".", color=look["color"])
    if not np.array_equal(curve.lowest, curve.highest, equal_nan=True):
        axes.fill_between(
            curve.steps, curve.lowest, curve.highest, color=look["color"], alpha=0.2, linewidth=0
        )


class PlainLogFormatter(LogFormatterSciNotation):
    """As its base, with 0.02 for `2 × 10⁻²` and 300 for `3 × 10²`."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a tick, empty for one that is to have none."""
        text = super().__call__(x, pos)
        return f"{x:g}" if text and 1e-3 < x < 1e5 else text


def _make_logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < LEAST_RATIO * low:
        # Noise in the third digit is not to look like a result.
        axes.set_ylim(low / LEAST_RATIO**0.25, low * LEAST_RATIO**0.75)
    axes.yaxis.set_major_formatter(PlainLogFormatter())
    axes.yaxis.set_minor_formatter(
        PlainLogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5))
    )


def _as_text(name: str) -> str:
    """A name in which a dollar is a dollar, not the start of a formula."""
    return name.replace("$", r"\$")
