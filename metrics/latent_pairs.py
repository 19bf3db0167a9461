"""Pairs of latents and their images: what metrics of generators compare."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from disentangle.metrics.decoding import CheckedDecoder
from disentangle.metrics.inputs import check_real


def draw_latents(
    sample: Callable[[int, torch.Generator], Tensor], count: int, generator: torch.Generator
) -> Tensor:
    """Checked draws of the caller's prior, shape `(count, D)`.

    Raises:
        ValueError: If `sample` does not give floating-point numbers of that shape.
    """
    z = sample(count, generator)
    check_real("latents", z)
    if z.ndim != 2 or len(z) != count or z.shape[1] == 0 or not z.is_floating_point():
        raise ValueError(
            f"sample must give floating-point latents of shape ({count}, D), got {z.dtype} of "
            f"shape {tuple(z.shape)}"
        )
    return z


def as_coordinates(coordinates: Sequence[int] | None, latent_dim: int) -> Tensor:
    """Checked, distinct indices of latents, all of them for None.

    Raises:
        ValueError: If there are none, or one does not exist or comes twice.

    Examples:
        >>> as_coordinates(None, 3)
        tensor([0, 1, 2])
    """
    chosen = list(range(latent_dim)) if coordinates is None else list(coordinates)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(latent_dim)):
        raise ValueError(
            f"coordinates must be distinct integers from 0 to {latent_dim - 1}, got {chosen}"
        )
    return torch.tensor(chosen)


def decode_pairs(decode: CheckedDecoder, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images `(N, C, H, W)` of latents `(N, D)` and `(N, D)`, decoded as one batch.

    Raises:
        ValueError: As `CheckedDecoder`.
    """
    before, after = decode(torch.cat([first, second])).chunk(2)  # (2N, C, H, W)
    return before, after
