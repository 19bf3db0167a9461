"""Layout of pictures from parts that are measured before they are placed.

So no label is clipped. The font comes with Matplotlib, so that a picture is the same on every
machine; it has Latin, Greek and Cyrillic letters and typographical signs.
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
LARGE = 9  # ratio of larger tiles to their text, which keeps labels legible on a screen
GAP, TEXT_GAP, SECTION_GAP = 2, 6, 12  # px: between tiles; headings; sections and samples


def text_size(tile_width: int) -> int:
    """Return the text size for tiles of a width, both in pixels.

    Examples:
        >>> [text_size(width) for width in (32, 128, 256, 1024)]
        [14, 18, 28, 113]
    """
    smallest, usual = TEXT_SIZES
    return max(smallest, min(tile_width // 7, usual), tile_width // LARGE)


def text(line: str, size: int) -> Image.Image:
    """Draw one line of text, as wide as its ink and as high as its font."""
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
    """Return the font for text of a size in pixels."""
    import matplotlib  # imported here, as training draws no text

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def heading(line: str | None, size: int) -> list[Image.Image]:
    """Draw the heading of a group of axes, if it has a name."""
    return [] if line is None else [text(line, round(1.2 * size))]


def page(title: str | None, sections: Sequence[Image.Image], size: int) -> Image.Image:
    """Stack a title and sections, with a margin around them."""
    parts = sections if title is None else [text(title, round(1.4 * size)), *sections]
    content = above(parts, SECTION_GAP)
    sheet = blank(content.width + 2 * SECTION_GAP, content.height + 2 * SECTION_GAP)
    sheet.paste(content, (SECTION_GAP, SECTION_GAP))
    return sheet


def strip(images: np.ndarray, width: int) -> Image.Image:
    """Place images `(V, H, W, 3)` side by side, each centred in a column of a width."""
    count, height, tile_width, _ = images.shape
    canvas = np.full((height, count * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    for v, image in enumerate(images):
        x = v * (width + GAP) + (width - tile_width) // 2
        canvas[:, x : x + tile_width] = image
    return Image.fromarray(canvas)


def blank(width: int, height: int) -> Image.Image:
    """Return a white canvas."""
    return Image.new("RGB", (width, height), "white")


def widen(part: Image.Image, width: int, align: float = 0.5) -> Image.Image:
    """Place a part on a canvas of `width`, at the left (0), in the middle (0.5) or right (1)."""
    canvas = blank(width, part.height)
    canvas.paste(part, (round(align * (width - part.width)), 0))
    return canvas


def align(parts: Sequence[Image.Image], place: float) -> list[Image.Image]:
    """Widen all parts to the width of the widest."""
    width = max(part.width for part in parts)
    return [widen(part, width, place) for part in parts]


def beside(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Stack parts from left to right, centred vertically."""
    height = max(part.height for part in parts)
    canvas = blank(sum(part.width for part in parts) + gap * (len(parts) - 1), height)
    x = 0
    for part in parts:
        canvas.paste(part, (x, (height - part.height) // 2))
        x += part.width + gap
    return canvas


def above(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Stack parts from top to bottom, flush left."""
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
    """Yield runs of axes with the same group name.

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
    """Split `count` items into lines of at most `most`, of about equal length.

    Examples:
        >>> split_evenly(8, 3)
        [range(0, 3), range(3, 6), range(6, 8)]
    """
    length = math.ceil(count / math.ceil(count / most))
    return [range(i, min(i + length, count)) for i in range(0, count, length)]
