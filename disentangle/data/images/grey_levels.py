"""Grey levels of image files that PIL does not bring to 8 bits as their header asks."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    TiffImageFile,
)

SIGNED = 2  # of TIFF's SampleFormat


@dataclass(frozen=True)
class GreyLevels:
    """Meaning of the grey values of an image, as its header has it.

    The default stands for an image that PIL reads as it should be, in grey or colour.

    Args:
        bits: Bits of a value, with its sign.
        signed: Whether values can be negative; 0 is then black still.
        white_is_zero: Whether 0 is white and the largest value black.
        transparent: Value of transparent pixels, if there are any.

    Examples:
        >>> values = Image.fromarray(np.array([[0, 2056, 65535]], dtype=np.uint16))
        >>> np.asarray(GreyLevels(bits=16, transparent=0).to_8_bits(values)).tolist()
        [[255, 8, 255]]
    """

    bits: int = 8
    signed: bool = False
    white_is_zero: bool = False
    transparent: int | None = None

    def to_8_bits(self, image: Image.Image) -> Image.Image:
        """Scale grey values to 0 … 255, and lay transparent ones on white.

        Args:
            image: The image of this header, which may have been turned or cropped.

        Raises:
            ValueError: If a value is negative.
        """
        if self == GreyLevels():
            return image
        values = np.asarray(image)  # (H, W)
        if self.signed:
            values = _refuse_negative(values)
        white = 2 ** (self.bits - self.signed) - 1
        scaled = values.astype(np.uint32)  # 16 bits do not hold 65535 · 255
        scaled *= 255
        scaled += white // 2
        scaled //= white
        grey = scaled.astype(np.uint8)
        if self.white_is_zero:
            grey = 255 - grey
        if self.transparent is not None:
            grey[values == self.transparent] = 255
        return Image.fromarray(grey)


def read_levels(image: Image.Image) -> GreyLevels:
    """Return the meaning of grey values, from the header of a file that has just been opened.

    Args:
        image: An image from `PIL.Image.open`. Copies, such as a turned one, have no header.

    Raises:
        ValueError: If pixels are floating-point numbers or have 32 bits, or if 16-bit colours have
            a transparent one, of which PIL drops the lower bits.
    """
    if image.mode == "F":
        raise ValueError("pixels must be integers of at most 16 bits, got floating-point numbers")
    if isinstance(image, TiffImageFile):
        return _read_tiff(image)
    if isinstance(image, PngImageFile):
        return _read_png(image)
    # PIL scales the values of a PGM file of more than 8 bits from its maxval to 65535.
    return GreyLevels(bits=16) if image.mode == "I" else GreyLevels()


def _read_tiff(image: TiffImageFile) -> GreyLevels:
    bits = image.tag_v2.get(BITSPERSAMPLE, (1,))[0]
    signed = image.tag_v2.get(SAMPLEFORMAT, (1,))[0] == SIGNED
    if image.mode == "I" and bits > 16:
        raise ValueError(f"pixels must be integers of at most 16 bits, got {bits}")
    if not signed and not image.mode.startswith("I"):  # PIL knows of white at 0 in 8 bits
        return GreyLevels()
    white_is_zero = image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    return GreyLevels(bits=bits, signed=signed, white_is_zero=white_is_zero)


def _read_png(image: PngImageFile) -> GreyLevels:
    transparent = image.info.get("transparency")
    stored = str(image.tile[0][3]) if image.tile else ""  # such as L;4, for 4 bits
    if image.mode == "RGB" and stored != "RGB" and transparent is not None:
        raise ValueError("a transparent colour of 16 bits is not supported, only of 8 bits")
    if image.mode.startswith("I"):
        return GreyLevels(bits=16, transparent=transparent)
    if image.mode == "L" and transparent is not None:
        # PIL scales pixels of 2 and 4 bits to 8, but not the transparent one.
        largest = {"L;2": 3, "L;4": 15}.get(stored, 255)
        return GreyLevels(transparent=(transparent & largest) * 255 // largest)
    return GreyLevels()


def _refuse_negative(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:  # as which PIL reads signed ones
        values = values.view(np.int8)
    if (least := values.min()) < 0:
        raise ValueError(f"pixels must not be negative, got {least}")
    return values
