"""Labelled grids of traversals."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from PIL import Image
from torch import Tensor

from disentangle.traversal.difference_maps import colour, draw_key
from disentangle.traversal.layout import (
    GAP,
    SECTION_GAP,
    TEXT_GAP,
    above,
    align,
    beside,
    blank,
    heading,
    page,
    runs_of_groups,
    split_evenly,
    strip,
    text,
    text_size,
    widen,
)
from disentangle.traversal.pixels import check_frames, choose_scale, enlarge, to_pixels

LINE = 1600  # px: width after which further samples start a new line


def traversal_grid(
    frames: Tensor,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    title: str | None = None,
    scale: int | None = None,
    changes: Tensor | None = None,
    originals: Mapping[str, Tensor] | None = None,
) -> Image.Image:
    """Draw a labelled grid of traversals: one row per axis, one column per value.

    Several samples are placed side by side, so that a row is always one axis, and wrapped to
    several lines if the picture would become too wide.

    Args:
        frames: Shape `(A, S, V, C, H, W)` in `[-1, 1]`, with one or three channels.
        row_labels: `A` names of axes.
        column_labels: `V` names of values, see `value_labels`.
        groups: `A` names of groups; a heading starts wherever the name changes.
        title: Title above the picture.
        scale: Integer factor to enlarge images by; by default the smallest one that makes them at
            least 64 px large.
        changes: Changes `(A, S, V, H, W)` of `measure_changes`, drawn as a row of heat maps below
            each axis.
        originals: Images `(C, H, W)` in `[-1, 1]` to show above the grid, by name.

    Raises:
        ValueError: If the frames have another shape or are non-finite, or the labels or changes do
            not match them.

    Examples:
        >>> import torch
        >>> frames = torch.zeros(2, 1, 3, 1, 64, 64)
        >>> grid = traversal_grid(frames, ["size", "angle"], ["-1", "0", "+1"])
        >>> grid.height > 2 * 64 and grid.width > 3 * 64
        True
    """
    check_frames(frames, row_labels, column_labels, groups)
    scale = choose_scale(frames, scale)
    tiles = enlarge(to_pixels(frames), scale)
    size = text_size(tiles.shape[4])
    kinds = [(row_labels, tiles)]
    sections = []
    if originals:
        sections.append(_draw_originals(originals, scale, size))
    if changes is not None:
        if changes.shape != (*frames.shape[:3], *frames.shape[4:]):
            raise ValueError(
                f"changes must have the shape (A, S, V, H, W) of frames {tuple(frames.shape)}, "
                f"got {tuple(changes.shape)}"
            )
        largest = float(changes.max())
        kinds.append((["change"] * len(tiles), enlarge(colour(changes, largest), scale)))
        sections.append(draw_key(largest, size))
    sections += _draw_lines(kinds, column_labels, groups, size)
    return page(title, sections, size)


def _draw_lines(
    kinds: Sequence[tuple[Sequence[str], np.ndarray]],
    column_labels: Sequence[str],
    groups: Sequence[str] | None,
    size: int,
) -> list[Image.Image]:
    """Draw, for each line of samples, a header and the rows of the axes of each group.

    Args:
        kinds: `A` names and tiles `(A, S, V, H, W, 3)` of each kind of row of an axis.
        column_labels: `V` names of values.
        groups: `A` names of groups.
        size: Size of the text, in pixels.
    """
    labels = align([text(name, size) for name in chain(*(names for names, _ in kinds))], 1.0)
    tiles = kinds[0][1]
    axes, samples = tiles.shape[:2]
    columns = [text(label, size) for label in column_labels]
    width = max(tiles.shape[4], *(label.width + TEXT_GAP for label in columns))
    header = beside([widen(label, width) for label in columns], GAP)
    most = max(1, (LINE - labels[0].width) // (header.width + SECTION_GAP))
    sections = []
    for line in split_evenly(samples, most):
        headers = [_number(header, s, size) if samples > 1 else header for s in line]
        sections.append(beside([blank(labels[0].width, 1), *headers], SECTION_GAP))
        for name, members in runs_of_groups(groups, axes):
            rows = [
                beside(
                    [labels[k * axes + a], *(strip(kind[a, s], width) for s in line)], SECTION_GAP
                )
                for a in members
                for k, (_, kind) in enumerate(kinds)
            ]
            sections.append(above([*heading(name, size), *rows], GAP))
    return sections


def _number(header: Image.Image, sample: int, size: int) -> Image.Image:
    """Put the number of a sample above the header of its columns."""
    return above([widen(text(f"sample {sample + 1}", size), header.width), header], GAP)


def _draw_originals(originals: Mapping[str, Tensor], scale: int, size: int) -> Image.Image:
    """Draw images side by side, each above its name."""
    cells = []
    for name, image in originals.items():
        tile = Image.fromarray(np.ascontiguousarray(enlarge(to_pixels(image), scale)))
        label = text(name, size)
        width = max(tile.width, label.width)
        cells.append(above([widen(tile, width, 0.0), widen(label, width, 0.0)], GAP))
    return beside(cells, SECTION_GAP)
