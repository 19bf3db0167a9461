"""The parts that pictures are composed of, measured before they are placed.

So no label can be clipped. Text uses a font that comes with Matplotlib, so that a picture looks the
same on every machine; it has Latin, Greek and Cyrillic letters and typographical signs.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from disentangle.output.text import escape_control_characters

TEXT_SIZES = (14, 28)  # px: of small tiles and of those of 200 to 250 px
LARGE = 9  # of larger tiles the share, or a sheet on a screen would have illegible labels
GAP, TEXT_GAP, SECTION_GAP = 2, 6, 12  # px: between tiles; headings; sections and samples


def text_size(tile_width: int) -> int:
    """The size of the text that suits tiles of a width, both in pixels.

    Examples:
        >>> [text_size(width) for width in (32, 128, 256, 1024)]
        [14, 18, 28, 113]
    """
    smallest, usual = TEXT_SIZES
    return max(smallest, min(tile_width // 7, usual), tile_width // LARGE)


def text(line: str, size: int) -> Image.Image:
    """One line of text, as wide as its ink and as high as its font."""
    line = escape_control_characters(line)  # a line break has no width
    font = text_font(size)
    left, _, right, _ = font.getbbox(line or " ")
    _, _, _, height = font.getbbox("Ag|(")  # the same for all lines, or baselines would differ
    x = max(0, -math.floor(left))
    part = blank(x + math.ceil(right) + 1, math.ceil(height))
    ImageDraw.Draw(part).text((x, 0), line, fill="black", font=font)
    return part


@cache
def text_font(size: int) -> ImageFont.FreeTypeFont:
    """What text of a size, in pixels, is written in."""
    import matplotlib  # late: training draws no text

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def heading(line: str | None, size: int) -> list[Image.Image]:
    """A line above a group of axes, if it has a name."""
    return [] if line is None else [text(line, round(1.2 * size))]


def page(title: str | None, sections: Sequence[Image.Image], size: int) -> Image.Image:
    """Sections below each other and a title, with a margin around them."""
    parts = sections if title is None else [text(title, round(1.4 * size)), *sections]
    content = above(parts, SECTION_GAP)
    sheet = blank(content.width + 2 * SECTION_GAP, content.height + 2 * SECTION_GAP)
    sheet.paste(content, (SECTION_GAP, SECTION_GAP))
    return sheet


def strip(images: np.ndarray, width: int) -> Image.Image:
    """Tiles of the images `(V, H, W, 3)` side by side, each in the middle of its column."""
    count, height, tile_width, _ = images.shape
    canvas = np.full((height, count * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    for v, image in enumerate(images):
        x = v * (width + GAP) + (width - tile_width) // 2
        canvas[:, x : x + tile_width] = image
    return Image.fromarray(canvas)


def blank(width: int, height: int) -> Image.Image:
    """A white canvas."""
    return Image.new("RGB", (width, height), "white")


def widen(part: Image.Image, width: int, align: float = 0.5) -> Image.Image:
    """The part on a canvas of `width`, at the left (0), in the middle or at the right (1)."""
    canvas = blank(width, part.height)
    canvas.paste(part, (round(align * (width - part.width)), 0))
    return canvas


def align(parts: Sequence[Image.Image], place: float) -> list[Image.Image]:
    """All parts as wide as the widest of them."""
    width = max(part.width for part in parts)
    return [widen(part, width, place) for part in parts]


def beside(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Parts from left to right, centred vertically."""
    height = max(part.height for part in parts)
    canvas = blank(sum(part.width for part in parts) + gap * (len(parts) - 1), height)
    x = 0
    for part in parts:
        canvas.paste(part, (x, (height - part.height) // 2))
        x += part.width + gap
    return canvas


def above(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Parts from top to bottom, flush left."""
    width = max(part.width for part in parts)
    canvas = blank(width, sum(part.height for part in parts) + gap * (len(parts) - 1))
    y = 0
    for part in parts:
        canvas.paste(part, (0, y))
        y += part.height + gap
    return canvas


def runs_of_groups(
    groups: Sequence[str] | None, axes: int
) -> Iterator[tuple[str | None, list[int]]]:
    """Runs of axes with the same group name.

    Examples:
        >>> list(runs_of_groups(["p", "p", "q"], 3))
        [('p', [0, 1]), ('q', [2])]
    """
    if groups is None:
        yield None, list(range(axes))
        return
    for name, members in groupby(range(axes), key=lambda a: groups[a]):
        yield name, list(members)


def split_evenly(count: int, most: int) -> list[range]:
    """So many things in lines of about equal length, of at most `most`.

    Examples:
        >>> split_evenly(8, 3)
        [range(0, 3), range(3, 6), range(6, 8)]
    """
    length = math.ceil(count / math.ceil(count / most))
    return [range(i, min(i + length, count)) for i in range(0, count, length)]
