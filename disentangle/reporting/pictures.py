"""Figures and images as pictures of a report."""

from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

from disentangle.reporting.document import Picture
from disentangle.traversal.animation import LARGEST_WEBP, LOSSLESS, LOSSY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCH = 96  # CSS pixels
COLUMNS = 2  # of panels: figures that fit the width of a printed page


def picture_of_figure(figure: "Figure", name: str, description: str, caption: str) -> Picture:
    """A figure, as large as it was drawn to be."""
    from disentangle.output.figures import encode_figure  # matplotlib takes a moment

    width, height = (round(INCH * side) for side in figure.get_size_inches())
    content = encode_figure(figure, "png")
    return Picture(name, content, "png", width, height, description, caption)


def picture_of_image(
    image: Image.Image, name: str, description: str, caption: str, *, has_text: bool
) -> Picture:
    """An image, as a WebP if that can hold it: photographs are ten times smaller than as a PNG."""
    kind = "webp" if max(image.size) <= LARGEST_WEBP else "png"
    options: dict[str, Any] = {}
    if kind == "webp":
        options = LOSSLESS if _is_grey(image) else LOSSY
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return Picture(name, buffer.getvalue(), kind, *image.size, description, caption, has_text)


def _is_grey(image: Image.Image) -> bool:
    """Return True if an RGB image has no colour."""
    red, green, blue = (band.tobytes() for band in image.convert("RGB").split())
    return red == green == blue
