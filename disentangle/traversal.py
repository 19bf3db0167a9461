"""Latent traversals: the images along every axis, as labelled grids and animations.

Pictures are composed of parts that are measured before they are placed, so that no label can be
clipped. Text uses the font that Pillow brings, so that a picture looks the same on every machine;
that font has no Greek letters, accents or typographical signs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

DEFAULT_VALUES = (-3.0, -2.25, -1.5, -0.75, 0.0, 0.75, 1.5, 2.25, 3.0)
SMALLEST_TILE = 64  # px: smaller images are enlarged to at least this
TEXT_SIZES = (14, 28)  # px: smallest and largest
AXES_PER_LINE = 10  # in an animation
LARGEST_WEBP = 16_383  # px, of a side; a limit of the format
# Drawn shapes are smaller without loss, photographs eight times larger. The quality of a lossless
# file is the effort of its compression.
LOSSLESS: dict[str, Any] = {"lossless": True, "quality": 40, "method": 2}
LOSSY: dict[str, Any] = {"lossless": False, "quality": 90, "method": 2}
GAP, TEXT_GAP, SECTION_GAP = 2, 6, 12  # px: between tiles; headings; sections and samples


class TraversalAxis(Protocol):
    """What a traversal needs to know of an axis."""

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
    """The images of latents whose component along one axis at a time is replaced.

    The component of each latent along the axis becomes `value · std`, whatever it was; the others
    stay. All axes, latents and values share full batches.

    Args:
        decode: Gives images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`.
        z: Base latents of shape `(S, D)`, on the device of the decoder.
        axes: `A` axes.
        values: `V` positions along an axis, in its standard deviations.
        batch_size: Images decoded at once.

    Returns:
        Frames of shape `(A, S, V, C, H, W)` on the CPU, clamped to `[-1, 1]`.

    Raises:
        ValueError: If there is nothing to traverse, a direction does not fit the latents or is not
            of length 1, or the images are no finite images.

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
    d = _stack_directions(axes, z)[:, None, None]  # (A, 1, 1, D)
    std = z.new_tensor([axis.std for axis in axes])[:, None, None, None]
    base = z[:, None]  # (S, 1, D)
    component = (base * d).sum(dim=-1, keepdim=True)  # (A, S, 1, 1)
    moved = base - component * d + amounts[:, None] * std * d  # (A, S, V, D)
    batches = moved.flatten(0, 2).split(batch_size)
    images = torch.cat([_decode(decode, batch) for batch in batches])  # (A·S·V, C, H, W)
    return images.unflatten(0, moved.shape[:3])


def value_labels(values: Sequence[float] | Tensor) -> list[str]:
    """Column labels of traversal values, in standard deviations.

    Examples:
        >>> value_labels([-3.0, 0.0, 2.25])
        ['-3 std', '0', '+2.25 std']
    """
    rounded = [round(float(value), 2) for value in values]
    return [f"{value:+g} std" if value else "0" for value in rounded]


def traversal_grid(
    frames: Tensor,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    title: str | None = None,
    scale: int | None = None,
) -> Image.Image:
    """A labelled picture of traversals: one row per axis, one column per value.

    Several samples stand side by side, so that a row is always one axis.

    Args:
        frames: Shape `(A, S, V, C, H, W)` in `[-1, 1]`, with one or three channels.
        row_labels: `A` names of axes.
        column_labels: `V` names of values, see `value_labels`.
        groups: `A` names; a heading is set wherever the name changes.
        title: Set above everything.
        scale: Integer factor that images are enlarged by; by default the smallest one that makes
            them at least 64 px large.

    Raises:
        ValueError: If the frames have another shape or are not finite, or the numbers of labels do
            not fit them.

    Examples:
        >>> frames = torch.zeros(2, 1, 3, 1, 64, 64)
        >>> grid = traversal_grid(frames, ["size", "angle"], ["-1", "0", "+1"])
        >>> grid.height > 2 * 64 and grid.width > 3 * 64
        True
    """
    tiles, size = _prepare(frames, row_labels, column_labels, groups, scale)
    names = _align([_text(label, size) for label in row_labels], 1.0)
    columns = [_text(label, size) for label in column_labels]
    column_width = max(tiles.shape[4], *(label.width + TEXT_GAP for label in columns))
    header = _beside([_widen(label, column_width) for label in columns], GAP)
    if len(tiles[0]) > 1:
        headers = [
            _above([_widen(_text(f"sample {s + 1}", size), header.width), header], GAP)
            for s in range(len(tiles[0]))
        ]
    else:
        headers = [header]
    sections = [_beside([_blank(names[0].width, 1), *headers], SECTION_GAP)]
    for heading, members in _group(groups, len(tiles)):
        rows = []
        for a in members:
            strips = [_strip(sample, column_width) for sample in tiles[a]]
            rows.append(_beside([names[a], *strips], SECTION_GAP))
        sections.append(_above([*_heading(heading, size), *rows], GAP))
    return _page(title, sections, size)


def save_animation(
    frames: Tensor,
    path: str | Path,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    title: str | None = None,
    scale: int | None = None,
    milliseconds: int = 150,
) -> None:
    """Writes an animated WebP in which all axes move through their values, forth and back.

    Every axis is a labelled column with one tile per sample; the current value stands below. The
    file loops for ever and has `2V − 2` frames, lossless for one channel.

    Args:
        frames: Shape `(A, S, V, C, H, W)` in `[-1, 1]`, with `V ≥ 2`.
        path: Where to write; ends in `.webp`.
        row_labels: `A` names of axes.
        column_labels: `V` names of values, all different; see `value_labels`.
        groups: `A` names; a new block with a heading starts wherever the name changes.
        title: Set above everything.
        scale: As in `traversal_grid`.
        milliseconds: How long each value is shown.

    Raises:
        ValueError: As `traversal_grid`, and if there is one value only, two values have the same
            label, the path has another ending, or the picture is too large for a WebP.

    Examples:
        >>> import tempfile
        >>> frames = torch.rand(2, 1, 3, 1, 64, 64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_animation(frames, f"{folder}/a.webp", ["size", "angle"], ["-1", "0", "+1"])
        ...     with Image.open(f"{folder}/a.webp") as animation:
        ...         animation.n_frames
        4
    """
    if Path(path).suffix.lower() != ".webp":
        raise ValueError(f"the path of an animation must end in .webp, got {str(path)!r}")
    tiles, size = _prepare(frames, row_labels, column_labels, groups, scale)
    count = len(column_labels)
    if count < 2 or len(set(column_labels)) < count:
        # the writer merges frames that are equal, so that dead axes need the caption to differ
        raise ValueError(
            f"an animation needs at least two values with different labels, got {column_labels}"
        )
    names = [_text(label, size) for label in row_labels]
    column_width = max(tiles.shape[4], *(name.width + TEXT_GAP for name in names))
    names = [_widen(name, column_width) for name in names]
    captions = _align([_text(label, size) for label in column_labels], 0.0)
    pages = [
        _page(title, [*_draw_blocks(tiles[:, :, v], names, groups, size), captions[v]], size)
        for v in range(count)
    ]
    if max(pages[0].size) > LARGEST_WEBP:
        raise ValueError(
            f"a WebP has at most {LARGEST_WEBP} pixels along a side, got {pages[0].size}: "
            "choose fewer samples or axes"
        )
    first, *rest = [*pages, *pages[-2:0:-1]]
    quality = LOSSLESS if frames.shape[3] == 1 else LOSSY
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, **quality)


def image_grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """A plain sheet of images, filled row by row.

    Args:
        images: Shape `(N, C, H, W)` in `[-1, 1]`, with one or three channels.
        columns: Images per row; by default as many as make the sheet about square.

    Raises:
        ValueError: If the images have another shape or are not finite, or there is no column.

    Examples:
        >>> image_grid(torch.zeros(6, 3, 32, 32)).size
        (100, 66)
    """
    if images.ndim != 4:
        raise ValueError(f"images must have the shape (N, C, H, W), got {tuple(images.shape)}")
    pixels = _to_pixels(images)
    columns = math.ceil(math.sqrt(len(pixels))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    tiles = [Image.fromarray(image) for image in pixels]
    rows = [_beside(tiles[i : i + columns], GAP) for i in range(0, len(tiles), columns)]
    return _above(rows, GAP)


def _stack_directions(axes: Sequence[TraversalAxis], z: Tensor) -> Tensor:
    """The directions `(A, D)` in the type and on the device of the latents `(S, D)`."""
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


def _decode(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The images of a batch, checked, on the CPU."""
    images = decode(z)
    if images.ndim != 4 or len(images) != len(z):
        raise ValueError(
            f"decode must give images of shape ({len(z)}, C, H, W), got {tuple(images.shape)}"
        )
    images = images.float().cpu()
    if not images.isfinite().all():
        raise ValueError("decode must give finite images, got NaN or infinity")
    return images.clamp(-1, 1)


def _prepare(
    frames: Tensor,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    groups: Sequence[str] | None,
    scale: int | None,
) -> tuple[np.ndarray, int]:
    """The enlarged pixels `(A, S, V, H, W, 3)` and the size of the text that suits them."""
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
    if scale is None:
        scale = math.ceil(SMALLEST_TILE / min(frames.shape[-2:]))
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    pixels = _to_pixels(frames).repeat(scale, axis=-3).repeat(scale, axis=-2)
    smallest, largest = TEXT_SIZES
    return pixels, min(max(pixels.shape[4] // 7, smallest), largest)


def _to_pixels(images: Tensor) -> np.ndarray:
    """RGB bytes `(…, H, W, 3)` of images `(…, C, H, W)` in `[-1, 1]`; values beyond are clamped."""
    if images.shape[-3] not in (1, 3) or not images.numel():
        raise ValueError(
            "images must have one or three channels and at least one pixel, got the shape "
            f"{tuple(images.shape)}"
        )
    if not images.isfinite().all():
        raise ValueError("images must be finite, got NaN or infinity")
    bytes_ = ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
    return bytes_.movedim(-3, -1).expand(*bytes_.shape[:-3], *bytes_.shape[-2:], 3).numpy()


def _group(groups: Sequence[str] | None, axes: int) -> Iterator[tuple[str | None, list[int]]]:
    """Runs of axes with the same group name."""
    if groups is None:
        yield None, list(range(axes))
        return
    for heading, members in groupby(range(axes), key=lambda a: groups[a]):
        yield heading, list(members)


def _draw_blocks(
    tiles: np.ndarray, names: list[Image.Image], groups: Sequence[str] | None, size: int
) -> list[Image.Image]:
    """Columns of the tiles `(A, S, H, W, 3)` under their names, in lines of about equal length."""
    cells = [
        _above([name, *(_widen(Image.fromarray(image), name.width) for image in samples)], GAP)
        for name, samples in zip(names, tiles, strict=True)
    ]
    sections = []
    for heading, members in _group(groups, len(tiles)):
        length = math.ceil(len(members) / math.ceil(len(members) / AXES_PER_LINE))
        lines = [members[i : i + length] for i in range(0, len(members), length)]
        rows = [_beside([cells[a] for a in line], GAP) for line in lines]
        sections.append(_above([*_heading(heading, size), _above(rows, SECTION_GAP)], GAP))
    return sections


def _heading(heading: str | None, size: int) -> list[Image.Image]:
    return [] if heading is None else [_text(heading, round(1.2 * size))]


def _page(title: str | None, sections: list[Image.Image], size: int) -> Image.Image:
    """Sections below each other and a title, with a margin around them."""
    parts = sections if title is None else [_text(title, round(1.4 * size)), *sections]
    content = _above(parts, SECTION_GAP)
    page = _blank(content.width + 2 * SECTION_GAP, content.height + 2 * SECTION_GAP)
    page.paste(content, (SECTION_GAP, SECTION_GAP))
    return page


def _strip(images: np.ndarray, width: int) -> Image.Image:
    """Tiles of the images `(V, H, W, 3)` side by side, each in the middle of its column."""
    return _beside([_widen(Image.fromarray(image), width) for image in images], GAP)


def _text(text: str, size: int) -> Image.Image:
    """One line of text, as wide as its ink and as high as its font."""
    font = ImageFont.load_default(size=size)
    left, _, right, _ = font.getbbox(text or " ")
    _, _, _, height = font.getbbox("Ag|(")  # the same for all lines, or baselines would differ
    x = max(0, -math.floor(left))
    line = _blank(x + math.ceil(right) + 1, math.ceil(height))
    ImageDraw.Draw(line).text((x, 0), text, fill="black", font=font)
    return line


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _widen(part: Image.Image, width: int, align: float = 0.5) -> Image.Image:
    """The part on a canvas of `width`, at the left (0), in the middle or at the right (1)."""
    canvas = _blank(width, part.height)
    canvas.paste(part, (round(align * (width - part.width)), 0))
    return canvas


def _align(parts: list[Image.Image], align: float) -> list[Image.Image]:
    """All parts as wide as the widest of them."""
    width = max(part.width for part in parts)
    return [_widen(part, width, align) for part in parts]


def _beside(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Parts from left to right, centred vertically."""
    height = max(part.height for part in parts)
    canvas = _blank(sum(part.width for part in parts) + gap * (len(parts) - 1), height)
    x = 0
    for part in parts:
        canvas.paste(part, (x, (height - part.height) // 2))
        x += part.width + gap
    return canvas


def _above(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Parts from top to bottom, flush left."""
    width = max(part.width for part in parts)
    canvas = _blank(width, sum(part.height for part in parts) + gap * (len(parts) - 1))
    y = 0
    for part in parts:
        canvas.paste(part, (0, y))
        y += part.height + gap
    return canvas
