"""Formats of the saved weights of an EigenGAN, and the conversion of the older one.

In format 1 its last layer was a transposed convolution; in format 2 it is a convolution, as in the
official code. A transposed convolution of stride 1 with the kernel `K` and the padding `p` equals a
convolution with `K` transposed and flipped and the padding `k − 1 − p`, here 7 − 1 − 3 = 3 again:
the images stay the same.

The shapes alone do not tell the formats apart where the images have as many channels as the last
features, so files say their format: a model's `config.json` and a checkpoint's manifest.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

FORMER, FORMAT = 1, 2
FORMAT_KEY = "_weights_format"  # diffusers passes keys with an underscore to no constructor
LAST_WEIGHT = "to_image.weight"


def is_former(facts: Mapping[str, Any]) -> bool:
    """Return whether the facts in a file describe weights in the older format.

    Raises:
        ValueError: If the format is unknown.

    Examples:
        >>> is_former({}), is_former({FORMAT_KEY: FORMAT})
        (True, False)
    """
    found = facts.get(FORMAT_KEY, FORMER)
    if found not in (FORMER, FORMAT):
        raise ValueError(
            f"{FORMAT_KEY} must be {FORMER} or {FORMAT}, got {found!r}: was it written by a newer "
            "version?"
        )
    return found == FORMER


def convert_kernel(kernel: Tensor) -> Tensor:
    """Return the kernel `(out, in, k, k)` of the convolution that equals a transposed one.

    Args:
        kernel: Kernel `(in, out, k, k)` of a transposed convolution of stride 1.

    Examples:
        >>> import torch
        >>> from torch.nn import functional
        >>> images, kernel = torch.randn(2, 4, 8, 8), torch.randn(4, 3, 7, 7)
        >>> expected = functional.conv_transpose2d(images, kernel, padding=3)
        >>> made = functional.conv2d(images, convert_kernel(kernel), padding=3)
        >>> torch.allclose(made, expected, atol=1e-4)
        True
    """
    return kernel.transpose(0, 1).flip(2, 3).contiguous()


def convert_weights(weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Convert the state dict of an EigenGAN from format 1 to format 2.

    Args:
        weights: State dict; returned unchanged if it lacks a 4-D weight of the last layer.
        prefix: Prefix of the names in the state dict.
    """
    name = prefix + LAST_WEIGHT
    if name not in weights or weights[name].ndim != 4:
        return dict(weights)
    return {**weights, name: convert_kernel(weights[name])}
