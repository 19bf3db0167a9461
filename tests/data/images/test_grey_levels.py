"""Grey of other than 8 bits: each file holds one ramp, in its own way."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disentangle.data.images.decoding import Decoder

RAMP = np.tile(np.arange(0, 256, 17), (16, 1))  # what every file should be in 8 bits


def decode(content, channels=1):
    return Decoder(image_size=16, image_channels=channels).decode(io.BytesIO(content), "a")


def png(values, *, depth, colour=0, transparent=None):
    """A PNG file of bytes `(H, W)`, whose header says how many bits a value has."""
    height, row = values.shape
    width = row * 8 // (depth * (3 if colour else 1))
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)]
    if transparent is not None:
        chunks.append(b"tRNS" + struct.pack(f">{len(transparent)}H", *transparent))
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks += [b"IDAT" + zlib.compress(rows), b"IEND"]
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(values, *, bits=16, photometric=1, sample_format=1, order="<", more=()):
    """A TIFF file of 16 × 16 pixels with one strip, whose bytes are those of the values."""
    strip = values.tobytes()
    tags = {256: 16, 257: 16, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 16}
    tags |= {279: len(strip), 339: sample_format} | dict(more)
    entries = b"".join(
        struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(tags.items())
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(f"{order}H", len(tags))
    return mark + struct.pack(f"{order}I", 8 + len(strip)) + strip + count + entries + bytes(4)


def pgm(values, maxval):
    return f"P5 16 16 {maxval}\n".encode() + values.astype(">u2").tobytes()


def saved(values, kind, **options):
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **options)
    return file.getvalue()


def twelve_bits(values):
    """Rows of which every three bytes hold two values."""
    first, second = values[:, ::2], values[:, 1::2]
    parts = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
    return np.stack(parts, axis=2).astype(np.uint8).reshape(16, -1)


SIXTEEN = (RAMP * 257).astype("<u2")
# LZW makes PIL hand the file over to libtiff, where it takes another way.
LZW = saved(SIXTEEN, "TIFF", compression="tiff_lzw")
WHITE_IS_ZERO = struct.pack("<HHI", 262, 3, 1)
FILES = {
    "png": png(SIXTEEN.astype(">u2").view(np.uint8), depth=16),
    "tiff": tiff(SIXTEEN),
    "big-endian tiff": tiff(SIXTEEN.astype(">u2"), order=">"),
    "compressed tiff": LZW,
    "white is zero": tiff(65535 - SIXTEEN, photometric=0),
    "white is zero, compressed": saved(65535 - SIXTEEN, "TIFF", compression="tiff_lzw").replace(
        WHITE_IS_ZERO + b"\1", WHITE_IS_ZERO + b"\0"
    ),
    "12 bits": tiff(twelve_bits(np.rint(RAMP * (4095 / 255)).astype(int)), bits=12),
    "signed": tiff(np.rint(RAMP * (32767 / 255)).astype("<i2"), sample_format=2),
    "signed big-endian": tiff(
        np.rint(RAMP * (32767 / 255)).astype(">i2"), sample_format=2, order=">"
    ),
    "maxval 65535": pgm(SIXTEEN, 65535),
    "maxval 1023": pgm(np.rint(RAMP * (1023 / 255)), 1023),
    "maxval 256": pgm(np.rint(RAMP * (256 / 255)), 256),
    "plain": b"P2 16 16 1023\n" + b" ".join(b"%d" % round(v * 1023 / 255) for v in RAMP.flat),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_values_are_what_the_header_says(content):
    assert np.array_equal(decode(content)[0], RAMP)
    assert np.array_equal(decode(content, channels=3), [RAMP] * 3)


def test_signed_bytes():
    values = np.rint(RAMP * (127 / 255)).astype(np.int8)
    image = decode(tiff(values, bits=8, sample_format=2))
    assert abs(image[0].numpy().astype(int) - RAMP).max() <= 1  # 7 bits
    assert image.max() == 255


def test_white_at_zero_in_8_bits():
    assert np.array_equal(
        decode(tiff((255 - RAMP).astype(np.uint8), bits=8, photometric=0))[0], RAMP
    )


def test_values_are_rounded():
    values = np.zeros((16, 16), dtype=">u2")
    values[0, :4] = [128, 129, 385, 386]
    image = decode(png(values.view(np.uint8), depth=16))
    assert image[0, 0, :4].tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [2, 4, 8, 16])
def test_a_transparent_grey_is_laid_on_white(depth, channels):
    levels = 2**depth - 1
    values = np.tile(np.arange(16) % min(levels + 1, 16), (16, 1))  # (H, W)
    bits = np.unpackbits(values.astype(">u2").view(np.uint8), axis=1).reshape(16, 16, 16)
    packed = np.packbits(bits[:, :, 16 - depth :].reshape(16, -1), axis=1)
    image = decode(png(packed, depth=depth, transparent=[2]), channels)
    expected = np.where(values == 2, 255, np.rint(values * (255 / levels)))
    assert np.array_equal(image, [expected] * channels)


def test_a_turned_image_keeps_its_levels():
    content = tiff(65535 - SIXTEEN, photometric=0, more={274: 6})  # shown turned by 90°
    assert np.array_equal(decode(content)[0], np.rot90(RAMP, -1))
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(SIXTEEN, "PNG", exif=exif)
    assert np.array_equal(decode(content)[0], np.rot90(RAMP, -1))


REFUSED = {
    "floating point": (
        saved(np.zeros((16, 16), dtype=np.float32), "TIFF"),
        "pixels must be integers of at most 16 bits, got floating-point numbers",
    ),
    "floating-point pfm": (
        b"Pf 16 16 -1.0\n" + bytes(1024),
        "pixels must be integers of at most 16 bits, got floating-point numbers",
    ),
    "32 bits": (
        saved(np.zeros((16, 16), dtype=np.int32), "TIFF"),
        "pixels must be integers of at most 16 bits, got 32",
    ),
    "negative": (
        tiff(np.full((16, 16), -3, dtype="<i2"), sample_format=2),
        "pixels must not be negative, got -3",
    ),
    "negative bytes": (
        tiff(np.full((16, 16), -3, dtype=np.int8), bits=8, sample_format=2),
        "pixels must not be negative, got -3",
    ),
    "a kind of TIFF that PIL does not know": (
        tiff(SIXTEEN.astype(">u2"), photometric=0, order=">"),
        "it cannot be read as TIFF: unknown pixel mode",
    ),
    "a transparent colour of 16 bits": (
        png(np.zeros((16, 96), dtype=np.uint8), depth=16, colour=2, transparent=[1, 2, 3]),
        "a transparent colour of 16 bits is not supported",
    ),
    "a JPEG of 12 bits": (
        saved(RAMP.astype(np.uint8), "JPEG").replace(
            b"\xff\xc0\x00\x0b\x08", b"\xff\xc0\x00\x0b\x0c"
        ),
        "it cannot be read as JPEG: cannot handle 12-bit layers",
    ),
    "a damaged PNG": (
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        "it cannot be read as PNG: broken PNG file",
    ),
    "nothing": (b"", "it must be one of BMP, GIF, .*, got an empty file"),
    "text": (b"a text", "it must be one of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP$"),
}


@pytest.mark.parametrize(("content", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusals_give_the_reason(tmp_path, content, reason):
    with pytest.raises(ValueError, match=f"^cannot decode a: {reason}"):
        decode(content)
    file = Path(tmp_path, "a.png")
    file.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        Decoder(image_size=16).decode(file, file)
