"""Traversals of the generators of a report."""

from collections.abc import Iterator, Sequence

import torch
from diffusers import ModelMixin
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from disentangle.models import Axis
from disentangle.reporting.document import Block, Picture, Points, Section
from disentangle.reporting.generators import ShownGenerator
from disentangle.reporting.pictures import picture_of_image
from disentangle.traversal import rank_axes, traversal_grid, traverse, value_labels

TITLE = "Traversals"
VALUES = torch.linspace(-2, 2, 9)
MOST = 24  # axes of a group that are drawn
RANKING_LATENTS = 64  # whose images choose them, if there are more
START = ("a draw of the prior", "draws of the prior")  # one, several
LARGEST = 128  # px: larger images are drawn smaller


def draw_traversals(shown: Sequence[ShownGenerator], *, samples: int, seed: int) -> Section:
    """Grids of one run of each experiment, one for each group of axes.

    Args:
        shown: The generators.
        samples: How many latents to start from, at least 1.
        seed: Seed for the latents.
    """
    blocks: list[Block] = []
    missing = []
    for generator in shown:
        if generator.model is None:
            missing.append(f"{generator.title(generator.run)}: no model yet")
            continue
        try:
            blocks += _draw_groups(generator, generator.model, samples, seed)
        except ValueError as error:  # a model that diverged is worth a report too
            missing.append(f"{generator.title(generator.run)}: could not be drawn: {error}")
    return Section(TITLE, [*blocks, Points(missing)] if missing else blocks)


def _draw_groups(
    generator: ShownGenerator, model: ModelMixin, samples: int, seed: int
) -> Iterator[Picture]:
    """A grid for each group of axes."""
    random = torch.Generator().manual_seed(seed)
    latents = model.sample_latents(samples, random).to(model.device)
    groups: dict[str, list[Axis]] = {}
    for axis in model.axes:
        groups.setdefault(axis.group, []).append(axis)
    for number, (group, axes) in enumerate(groups.items()):
        chosen = axes
        title = f"{generator.title(generator.run)}: {group}"
        caption = f"{title}, each axis moved alone, around {START[samples > 1]}"
        if len(axes) > MOST:
            draws = model.sample_latents(RANKING_LATENTS, random).to(model.device)
            chosen = list(rank_axes(model.decode, axes, draws)[:MOST])
            caption += f"; the {MOST} most active of {len(axes)}, with their activeness"
        frames = shrink(traverse(model.decode, latents, chosen, values=VALUES))
        names = [axis.name for axis in chosen]
        yield picture_of_image(
            traversal_grid(frames, names, value_labels(VALUES)),
            f"traversal-{generator.number}-{number}",
            f"Traversal of {group}, {generator.label}: a row for each axis.",
            f"{caption}.",
            has_text=True,
        )


def shrink(frames: Tensor) -> Tensor:
    """Frames `(A, S, V, C, H, W)` of at most 128 px.

    Examples:
        >>> shrink(torch.zeros(2, 1, 3, 1, 256, 128)).shape
        torch.Size([2, 1, 3, 1, 128, 64])
    """
    height, width = frames.shape[-2:]
    if max(height, width) <= LARGEST:
        return frames
    scale = LARGEST / max(height, width)
    size = (round(scale * height), round(scale * width))
    images = adaptive_avg_pool2d(frames.flatten(0, 2), size)  # (A·S·V, C, h, w)
    return images.unflatten(0, frames.shape[:3])
