"""Decoding of image files to pixels of one size."""

import re
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from disentangle.data.base import checked_integer
from disentangle.data.images.grey_levels import read_levels

MODES = {1: "L", 3: "RGB"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
OPENING = threading.Lock()  # the warnings filter, which threads share, is changed meanwhile


class UndecodableImageError(OSError, ValueError):
    """Error of a file that is damaged or no image."""


class Decoder:
    """Decoder of images, which crops them to their central square and resizes it (Lanczos).

    An image is turned as its EXIF tag says, laid on white where it is transparent and converted to
    RGB or grey of 8 bits; a square smaller than `image_size` is enlarged. The first image of an
    animation, or of a file of several pages, is taken. An image counts as corrupt if it has more
    pixels than `PIL.Image.MAX_IMAGE_PIXELS` (89 million), or grey values that are negative,
    floating-point numbers or of 32 bits.

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
        """Decode a file to an image uint8 `(C, H, W)`.

        Args:
            source: The file, or its content.
            name: Name of the file, for messages.

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
        """Decode N files to images uint8 `(N, C, H, W)`; arguments and errors as in `decode`."""
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
        levels = read_levels(image)
        image = levels.to_8_bits(ImageOps.exif_transpose(image))
        image = self._cut(_convert(image, mode))
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return image.resize((size, size), Image.Resampling.LANCZOS, box=box)

    def _cut(self, image: Image.Image) -> Image.Image:
        """Cut off the banner, and crop to the central square if a side is given.

        An image is cropped before it is resized, so that no pixel outside blends in.
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
    """Open an image: read its header, and check that it has a known format and a bounded size.

    Raises:
        ValueError: If it has more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, is no regular file, or
            is of another format than those in `FORMATS`; PIL knows some whose decoders run
            programs.
        Exception: If it is damaged; the kind depends on the format.
    """
    try:
        return _read_header(source)
    except UnidentifiedImageError as error:
        raise ValueError(_find_reason(source)) from error


def is_decodable(file: Path) -> bool:
    """Return whether the header of a file is one of an image that can be decoded.

    No pixels are read, so a truncated image counts as one, too.
    """
    try:
        with _read_header(file) as image:
            read_levels(image)
    except Exception:  # PIL raises errors of many types on what is no image
        return False
    return True


def _read_header(source: Path | BinaryIO) -> Image.Image:
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise ValueError("not a regular file")  # opening a pipe would wait for a writer
    # Above the limit PIL warns, and raises only above twice the limit.
    with OPENING, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(source, formats=FORMATS)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            limit, found = Image.MAX_IMAGE_PIXELS, re.search(r"\d+", str(error))
            got = f", got {int(found[0]):,}" if found else ""
            raise ValueError(f"it must have {limit:,} pixels at most{got}: shrink it") from error


def _find_reason(source: Path | BinaryIO) -> str:
    """Return the reason for which PIL did not identify an image, which it keeps to itself."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(0)
        beginning = file.read(16)
        for name in FORMATS if beginning else ():
            plugin, accept = Image.OPEN[name]
            accepted = accept is None or accept(beginning)
            if isinstance(accepted, str):  # the format is one that this PIL was built without
                return accepted
            if accepted:
                try:
                    file.seek(0)
                    plugin(file, "")
                except Exception as error:
                    return f"it cannot be read as {name}: {error}"
    return f"it must be one of {', '.join(FORMATS)}" + ("" if beginning else ", got an empty file")


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image of 8 bits to RGB or grey, and lay it on white where it is transparent."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)
