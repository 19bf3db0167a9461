"""Selection and ranking of axes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disentangle.metrics import activeness
from disentangle.models import Axis

DEAD = 1e-4  # share of the largest activeness


def pick_axes(axes: Sequence[Axis], chosen: str) -> tuple[Axis, ...]:
    """Return the axes that a text names, in its order.

    Args:
        axes: Axes to choose from.
        chosen: Comma-separated indices from 0, groups such as `block 1`, or single axes of a group
            such as `block 1/dimension 2`.

    Raises:
        ValueError: If a part of the text names no axis, or an axis is named twice.

    Examples:
        >>> axes = [Axis(name, "codes", torch.ones(1)) for name in "abc"]
        >>> [axis.name for axis in pick_axes(axes, "2, codes/a")]
        ['c', 'a']
    """
    names = [f"{axis.group}/{axis.name}" for axis in axes]
    found: list[int] = []
    for word in (part.strip() for part in chosen.split(",")):
        matches = [i for i, a in enumerate(axes) if word in (str(i), a.group, names[i])]
        if not matches:
            known = get_close_matches(word, [*dict.fromkeys(a.group for a in axes), *names])
            hint = f"; did you mean {known[0]}?" if known else ""
            raise ValueError(
                f"no axis {word!r}: expected an index from 0 to {len(axes) - 1}, a group or "
                f"GROUP/NAME, such as {names[0]!r}{hint}"
            )
        if repeated := set(matches) & set(found):
            raise ValueError(f"axis {names[min(repeated)]!r} is named twice in {chosen!r}")
        found += matches
    return tuple(axes[i] for i in found)


def rank_axes(
    decode: Callable[[Tensor], Tensor], axes: Sequence[Axis], latents: Tensor
) -> tuple[Axis, ...]:
    """Sort the axes of each group by decreasing activeness, which is added to their names.

    Groups keep their order, that of the layers.

    Args:
        decode: Maps latents `(N, D)` to images `(N, C, H, W)`.
        axes: `A` axes.
        latents: Base latents of shape `(N, D)`; see `disentangle.metrics.activeness`.

    Examples:
        >>> axes = [Axis(f"x{i}", "codes", d) for i, d in enumerate(torch.eye(2))]
        >>> decode = lambda z: (z * torch.tensor([0.1, 0.5]))[:, :, None, None]
        >>> [axis.name for axis in rank_axes(decode, axes, torch.zeros(1, 2))]
        ['x1 (0.5)', 'x0 (0.02)']
    """
    return _rank(axes, _measure(decode, axes, latents))


def rank_live_axes(
    decode: Callable[[Tensor], Tensor], axes: Sequence[Axis], latents: Tensor
) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
    """Sort axes as `rank_axes` does, without the dead ones, which hardly change the image.

    A dead axis has less than 1e-4 of the largest activeness.

    Args:
        decode: As in `rank_axes`.
        axes: As in `rank_axes`.
        latents: As in `rank_axes`.

    Returns:
        The sorted axes, and the dead ones as they were given.

    Examples:
        >>> axes = [Axis(f"x{i}", "codes", d) for i, d in enumerate(torch.eye(2))]
        >>> decode = lambda z: (z * torch.tensor([1e-4, 0.5]))[:, :, None, None]
        >>> live, dead = rank_live_axes(decode, axes, torch.zeros(1, 2))
        >>> [axis.name for axis in live], [axis.name for axis in dead]
        (['x1 (0.5)'], ['x0'])
    """
    measured = _measure(decode, axes, latents)
    is_live = measured >= DEAD * measured.max()
    live, dead = (
        tuple(axes[i] for i in np.flatnonzero(kind).tolist()) for kind in (is_live, ~is_live)
    )
    return _rank(live, measured[is_live]), dead


def _rank(axes: Sequence[Axis], measured: NDArray[np.float64]) -> tuple[Axis, ...]:
    """Sort the axes of each group by decreasing activeness `(A,)`, and add it to their names."""
    groups = list(dict.fromkeys(axis.group for axis in axes))
    order = sorted(range(len(axes)), key=lambda i: (groups.index(axes[i].group), -measured[i]))
    return tuple(replace(axes[i], name=f"{axes[i].name} ({measured[i]:.2g})") for i in order)


def _measure(
    decode: Callable[[Tensor], Tensor], axes: Sequence[Axis], latents: Tensor
) -> NDArray[np.float64]:
    """Return the activeness of each axis, `(A,)`."""
    return activeness(
        decode,
        latents,
        torch.stack([axis.direction for axis in axes]),
        std=[axis.std for axis in axes],
    ).per_axis
