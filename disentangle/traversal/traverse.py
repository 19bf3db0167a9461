"""Traversal of latents along every axis."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

DEFAULT_VALUES = (-3.0, -2.25, -1.5, -0.75, 0.0, 0.75, 1.5, 2.25, 3.0)
MOST_GIB = 8.0  # of images that are held in memory, as single-precision numbers


class TraversalAxis(Protocol):
    """Interface of an axis that can be traversed."""

    @property
    def direction(self) -> Tensor:
        """Unit vector of shape `(D,)` in the latent space."""

    @property
    def std(self) -> float:
        """Standard deviation of the prior along the direction."""


@torch.no_grad()
def traverse(
    decode: Callable[[Tensor], Tensor],
    z: Tensor,
    axes: Sequence[TraversalAxis],
    *,
    values: Sequence[float] | Tensor = DEFAULT_VALUES,
    batch_size: int = 64,
) -> Tensor:
    """Decode latents whose component along one axis at a time is replaced.

    The component of each latent along the axis is set to `value · std`; the others are unchanged.
    All axes, latents and values share full batches.

    Args:
        decode: Maps latents `(N, D)` to images `(N, C, H, W)` in `[-1, 1]`.
        z: Base latents of shape `(S, D)`, on the device of the decoder.
        axes: `A` axes.
        values: `V` positions along an axis, in its standard deviations.
        batch_size: Images decoded at once.

    Returns:
        Frames of shape `(A, S, V, C, H, W)` on the CPU, clamped to `[-1, 1]`.

    Raises:
        ValueError: If there is nothing to traverse, a direction does not match the latents or is
            not a unit vector, the decoder's output is not finite images, or the images would take
            more than 8 GiB.

    Examples:
        >>> from types import SimpleNamespace
        >>> axes = [SimpleNamespace(direction=d, std=1.0) for d in torch.eye(2)]
        >>> decode = lambda z: z[:, :, None, None].expand(-1, -1, 8, 8)[:, :1]
        >>> frames = traverse(decode, torch.zeros(1, 2), axes, values=[-1.0, 0.0, 1.0])
        >>> frames.shape
        torch.Size([2, 1, 3, 1, 8, 8])
        >>> frames[:, 0, :, 0, 0, 0].tolist()
        [[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    amounts = torch.as_tensor(values).to(z)
    if z.ndim != 2 or not len(z) or not len(axes) or amounts.ndim != 1 or not len(amounts):
        raise ValueError(
            "latents of shape (S, D), at least one axis and a list of values are needed, got "
            f"{tuple(z.shape)}, {len(axes)} axes and values of shape {tuple(amounts.shape)}"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    d = stack_directions(axes, z)[:, None, None]  # (A, 1, 1, D)
    std = z.new_tensor([axis.std for axis in axes])[:, None, None, None]
    base = z[:, None]  # (S, 1, D)
    component = (base * d).sum(dim=-1, keepdim=True)  # (A, S, 1, 1)
    moved = base - component * d + amounts[:, None] * std * d  # (A, S, V, D)
    images = _decode_all(decode, moved.flatten(0, 2), batch_size)  # (A·S·V, C, H, W)
    return images.unflatten(0, moved.shape[:3])


def value_labels(values: Sequence[float] | Tensor) -> list[str]:
    """Return the column labels of traversal values, in standard deviations.

    Examples:
        >>> value_labels([-3.0, 0.0, 2.25])
        ['-3 std', '0', '+2.25 std']
    """
    rounded = [round(float(value), 2) for value in values]
    return [f"{value:+g} std" if value else "0" for value in rounded]


def stack_directions(axes: Sequence[TraversalAxis], z: Tensor) -> Tensor:
    """Stack the directions `(A, D)`, with the dtype and device of the latents `(S, D)`.

    Raises:
        ValueError: If one does not match the latents or is not a unit vector.
    """
    for axis in axes:
        if axis.direction.shape != z.shape[1:]:
            raise ValueError(
                f"directions must have the shape ({z.shape[1]},), got {tuple(axis.direction.shape)}"
            )
    directions = torch.stack([axis.direction.to(z) for axis in axes])
    lengths = directions.norm(dim=1)
    if not ((lengths - 1).abs() < 1e-3).all():
        raise ValueError(f"directions must have length 1, got lengths {lengths.tolist()}")
    return directions


def _decode_all(decode: Callable[[Tensor], Tensor], z: Tensor, batch_size: int) -> Tensor:
    """Decode all latents, unless the images would take too much memory."""
    batches = z.split(batch_size)
    first = _decode(decode, batches[0])
    size = 4 * len(z) * first[0].numel() / 2**30
    if size > MOST_GIB:
        raise ValueError(
            f"{len(z)} images of shape {tuple(first.shape[1:])} take {size:.3g} GiB, at most "
            f"{MOST_GIB:g} GiB are allowed: choose fewer axes, samples or steps"
        )
    images = first.new_empty(len(z), *first.shape[1:])
    images[: len(first)] = first
    for i, batch in enumerate(batches[1:], start=1):
        images[i * batch_size :][: len(batch)] = _decode(decode, batch)
    return images


def _decode(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Decode a batch, and return its checked images on the CPU."""
    images = decode(z)
    if images.ndim != 4 or len(images) != len(z):
        raise ValueError(
            f"decode must give images of shape ({len(z)}, C, H, W), got {tuple(images.shape)}"
        )
    images = images.float().cpu()
    if not images.isfinite().all():
        raise ValueError("decode must give finite images, got NaN or infinity")
    return images.clamp(-1, 1)
