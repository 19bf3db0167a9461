"""Conversion of a model's images to the pixels of pictures."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

SMALLEST_TILE = 64  # px: smaller images are enlarged to at least this


def to_pixels(images: Tensor) -> np.ndarray:
    """Convert images `(…, C, H, W)` to RGB bytes `(…, H, W, 3)`, clamped to `[-1, 1]`.

    Raises:
        ValueError: If the images do not have one or three channels, are empty or non-finite.

    Examples:
        >>> import torch
        >>> to_pixels(torch.tensor([-1.0, 1.0]).view(1, 1, 2))[0].tolist()
        [[0, 0, 0], [255, 255, 255]]
    """
    if images.shape[-3] not in (1, 3) or not images.numel():
        raise ValueError(
            "images must have one or three channels and at least one pixel, got the shape "
            f"{tuple(images.shape)}"
        )
    low, high = images.detach().aminmax()  # NaN is passed on; one pass, and no mask of all pixels
    if not (low.isfinite() and high.isfinite()):
        raise ValueError("images must be finite, got NaN or infinity")
    scaled = (images.detach().float().cpu() + 1).mul_(127.5)  # a copy, changed in place from here
    bytes_ = scaled.round_().clamp_(0, 255).byte()
    return bytes_.movedim(-3, -1).expand(*bytes_.shape[:-3], *bytes_.shape[-2:], 3).numpy()


def choose_scale(images: Tensor, scale: int | None) -> int:
    """Return `scale`, or by default the least factor that enlarges images `(…, H, W)` to 64 px.

    Raises:
        ValueError: If it is less than 1.
    """
    if scale is None:
        return math.ceil(SMALLEST_TILE / min(images.shape[-2:]))
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    return scale


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Repeat each of the pixels `(…, H, W, 3)`, to `(…, scale·H, scale·W, 3)`."""
    if scale == 1:
        return pixels
    return pixels.repeat(scale, axis=-3).repeat(scale, axis=-2)


def check_frames(
    frames: Tensor,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    groups: Sequence[str] | None,
) -> None:
    """Raise `ValueError` unless frames `(A, S, V, C, H, W)` and their labels match."""
    if frames.ndim != 6:
        raise ValueError(
            f"frames must have the shape (A, S, V, C, H, W), got {tuple(frames.shape)}"
        )
    for name, labels, expected in (
        ("row_labels", row_labels, frames.shape[0]),
        ("column_labels", column_labels, frames.shape[2]),
        ("groups", groups, frames.shape[0]),
    ):
        if labels is not None and len(labels) != expected:
            raise ValueError(f"{name} must have {expected} entries, got {len(labels)}")
