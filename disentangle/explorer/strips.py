"""Encoding of images side by side for a page."""

import base64
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

from disentangle.traversal.animation import LARGEST_WEBP, LOSSLESS, LOSSY
from disentangle.traversal.pixels import to_pixels


def encode_strips(frames: Tensor) -> list[list[str]]:
    """Encode, for each sample and axis, the images of all values side by side as a data URI.

    The format is WebP, lossless for one channel. Strips are encoded in threads.

    Args:
        frames: Shape `(A, S, V, C, H, W)` in `[-1, 1]`, with one or three channels.

    Raises:
        ValueError: If the frames have another shape, or a strip is too wide for a WebP.

    Examples:
        >>> import torch
        >>> strips = encode_strips(torch.zeros(3, 2, 5, 1, 8, 8))
        >>> len(strips), len(strips[0]), strips[0][0][:22]
        (2, 3, 'data:image/webp;base64')
    """
    if frames.ndim != 6:
        raise ValueError(
            f"frames must have the shape (A, S, V, C, H, W), got {tuple(frames.shape)}"
        )
    values, width = frames.shape[2], frames.shape[5]
    check_strip(values, width)
    pixels = to_pixels(frames)
    options = LOSSLESS if frames.shape[3] == 1 else LOSSY
    # (A, S, V, H, W, 3) -> (S, A, H, V, W, 3) -> (S, A, H, V·W, 3)
    strips = pixels.transpose(1, 0, 3, 2, 4, 5).reshape(
        frames.shape[1], frames.shape[0], frames.shape[4], values * width, 3
    )
    with ThreadPoolExecutor() as pool:
        return [list(pool.map(lambda strip: _encode(strip, options), sample)) for sample in strips]


def check_strip(values: int, width: int) -> None:
    """Raise `ValueError` if `values` images of a width in pixels are too wide for a WebP."""
    if values * width > LARGEST_WEBP:
        raise ValueError(
            f"a strip has at most {LARGEST_WEBP} pixels along a side, got {values} images of "
            f"{width}: choose fewer steps"
        )


def encode_images(images: Tensor) -> list[str]:
    """Encode images `(N, C, H, W)` in `[-1, 1]` as data URIs."""
    return [sample[0] for sample in encode_strips(images[None, :, None])]


def _encode(pixels: np.ndarray, options: dict[str, object]) -> str:
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
