"""From an encoded image to pixels of one size."""

import re
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from disentangle.data.base import checked_integer

MODES = {1: "L", 3: "RGB"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
OPENING = threading.Lock()  # the warnings filter, which threads share, is changed meanwhile


class UndecodableImageError(OSError, ValueError):
    """A file of an image is damaged, or no image."""


class Decoder:
    """Decodes images, crops them to their central square and resizes it (Lanczos).

    An image is turned as its EXIF tag says, laid on white where it is transparent and converted to
    RGB or grey; a square smaller than `image_size` is enlarged. One of more pixels than
    `PIL.Image.MAX_IMAGE_PIXELS` (89 million) counts as corrupt.

    Args:
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        crop: Side of the central square, in pixels of the file; the largest if `None`.
        banner: Height of the banner at the bottom that is cut off first, in pixels of the file.

    Raises:
        ValueError: If an argument is not one of those above.

    Examples:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> Image.new("RGB", (80, 60), "red").save(file, "PNG")
        >>> Decoder(image_size=2, image_channels=1).decode(file, "red.png")
        tensor([[[76, 76], [76, 76]]], dtype=torch.uint8)
    """

    def __init__(
        self,
        *,
        image_size: int,
        image_channels: int = 3,
        crop: int | None = None,
        banner: int = 0,
    ) -> None:
        if image_channels not in MODES:
            raise ValueError(f"image_channels must be 1 or 3, got {image_channels!r}")
        self.image_size = checked_integer("image_size", image_size, 1)
        self.image_channels = image_channels
        self._crop = None if crop is None else checked_integer("crop", crop, 1)
        self._banner = banner

    def decode(self, source: Path | BinaryIO, name: str | Path) -> Tensor:
        """The image uint8 `(C, H, W)` of a file.

        Args:
            source: The file, or its content.
            name: What an error calls it.

        Raises:
            ValueError: If it cannot be decoded or is smaller than `crop`.
        """
        try:
            with open_image(source) as image:
                pixels = self._prepare(image)
        # Decoders raise errors of many types on damaged files, SyntaxError among them.
        except Exception as error:
            raise UndecodableImageError(f"cannot decode {name}: {error}") from error
        array = np.array(pixels).reshape(self.image_size, self.image_size, -1)  # (H, W, C)
        return torch.from_numpy(array).permute(2, 0, 1)

    def decode_batch(
        self, sources: Sequence[Path | BinaryIO], names: Sequence[str | Path]
    ) -> Tensor:
        """The images uint8 `(N, C, H, W)` of N files; arguments and errors as in `decode`."""
        shape = (len(sources), self.image_channels, self.image_size, self.image_size)
        images = torch.empty(shape, dtype=torch.uint8)
        for image, source, name in zip(images, sources, names, strict=True):
            try:
                image.copy_(self.decode(source, name))
            except ValueError as error:
                hint = "(--data.check true --data.on_corrupt skip leaves it out)"
                raise UndecodableImageError(f"{error} {hint}") from error
        return images

    def _prepare(self, image: Image.Image) -> Image.Image:
        size, mode = self.image_size, MODES[self.image_channels]
        if self._crop is None and not self._banner:
            # A large JPEG is decoded at ½, ¼ or ⅛ of its size, never below twice what is needed;
            # a crop and a banner are in pixels of the whole one.
            image.draft(mode, (2 * size, 2 * size))
        image = self._cut(_convert(ImageOps.exif_transpose(image), mode))
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((size, size), Image.Resampling.LANCZOS, box=box)

    def _cut(self, image: Image.Image) -> Image.Image:
        """The image without the banner, and of that the square if a side is given.

        It is cut before it is resized, so that no pixel outside blends in.
        """
        width, height = image.width, image.height - self._banner
        side = self._crop or 1
        if side > min(width, height):
            raise ValueError(f"a square of {side} pixels does not fit into {width} × {height}")
        if self._crop is None:
            return image.crop((0, 0, width, height))
        left, top = (width - side) // 2, (height - side) // 2
        return image.crop((left, top, left + side, top + side))


def open_image(source: Path | BinaryIO) -> Image.Image:
    """An image whose header has been read, and found to be of a known format and of bounded size.

    Raises:
        ValueError: If it has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, or is of another format
            than those in `FORMATS`; PIL knows some whose decoders run programs.
        Exception: Of many kinds, if it is damaged.
    """
    # Above the limit PIL warns, and raises only above twice the limit.
    with OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(source, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise ValueError(f"it must be one of {', '.join(FORMATS)}") from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            limit, found = Image.MAX_IMAGE_PIXELS, re.search(r"\d+", str(error))
            got = f", got {int(found[0]):,}" if found else ""
            raise ValueError(f"it must have {limit:,} pixels at most{got}: shrink it") from error


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """The image in 8-bit RGB or grey."""
    if image.mode.startswith("I;16"):
        # PIL would clip 16 bits to 255 instead of scaling them.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels must have 8 or 16 bits, got PIL mode {image.mode!r}")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
