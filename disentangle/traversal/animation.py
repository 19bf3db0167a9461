"""Animations of traversals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

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
    text,
    text_size,
    widen,
)
from disentangle.traversal.pixels import check_frames, choose_scale, enlarge, to_pixels

FORMATS = (".webp", ".gif", ".mp4")
AXES_PER_LINE = 10
LARGEST_WEBP = 16_383  # px, of a side; a limit of the format
# Lossless files of drawn shapes are smaller, those of photographs eight times larger. In a lossless
# file, `quality` is the effort of compression.
LOSSLESS: dict[str, Any] = {"lossless": True, "quality": 40, "method": 2}
LOSSY: dict[str, Any] = {"lossless": False, "quality": 90, "method": 2}
VIDEO_SECONDS = 10  # approximate length of a video, which does not loop by itself


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
    """Write an animation in which all axes move through their values, back and forth.

    Every axis is a labelled column with one tile per sample; the current value is shown below. A
    WebP or GIF loops for ever and has `2V − 2` frames; the WebP is lossless for one channel, the
    GIF has 256 colours. An MP4 (H.264) goes back and forth for about ten seconds.

    Args:
        frames: Shape `(A, S, V, C, H, W)` in `[-1, 1]`, with `V ≥ 2`.
        path: File to write; ends in `.webp`, `.gif` or `.mp4`.
        row_labels: `A` names of axes.
        column_labels: `V` names of values, all different; see `value_labels`.
        groups: `A` names of groups; a new block with a heading starts wherever the name changes.
        title: Title above the picture.
        scale: Integer factor to enlarge images by, see `traversal_grid`.
        milliseconds: Duration of each value.

    Raises:
        ValueError: As `traversal_grid`, and if there is only one value, two values have the same
            label, the path has another ending, the picture is too large for a WebP, or the package
            that writes an MP4 is missing.

    Examples:
        >>> import tempfile, torch
        >>> frames = torch.rand(2, 1, 3, 1, 64, 64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_animation(frames, f"{folder}/a.webp", ["size", "angle"], ["-1", "0", "+1"])
        ...     with Image.open(f"{folder}/a.webp") as animation:
        ...         animation.n_frames
        4
    """
    check_animation(path)
    check_frames(frames, row_labels, column_labels, groups)
    if len(column_labels) < 2 or len(set(column_labels)) < len(column_labels):
        # the writers merge equal frames, so dead axes need captions that differ
        raise ValueError(
            f"an animation needs at least two values with different labels, got {column_labels}"
        )
    pages = _draw_pages(frames, row_labels, column_labels, groups, title, scale)
    pages += pages[-2:0:-1]
    if Path(path).suffix.lower() == ".mp4":
        _write_video(pages, path, milliseconds)
        return
    quality: dict[str, Any] = {}
    if Path(path).suffix.lower() == ".webp":
        if max(pages[0].size) > LARGEST_WEBP:
            raise ValueError(
                f"a WebP has at most {LARGEST_WEBP} pixels along a side, got {pages[0].size}: "
                "choose fewer samples or axes"
            )
        quality = LOSSLESS if frames.shape[3] == 1 else LOSSY
    first, *rest = pages
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, **quality)


def check_animation(path: str | Path) -> None:
    """Raise unless an animation of the path's format can be written, before anything is computed.

    Raises:
        ValueError: If the ending is unknown, or the package that writes an MP4 is missing.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise ValueError(
            f"the path of an animation must end in one of {', '.join(FORMATS)}, got {str(path)!r}"
        )
    if ending == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as error:
            raise ValueError(
                "an .mp4 needs imageio-ffmpeg: pip install 'disentangle[video]', or choose .webp"
            ) from error


def _draw_pages(
    frames: Tensor,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    groups: Sequence[str] | None,
    title: str | None,
    scale: int | None,
) -> list[Image.Image]:
    """Draw a picture of all axes for each value."""
    tiles = enlarge(to_pixels(frames), choose_scale(frames, scale))
    size = text_size(tiles.shape[4])
    names = [text(label, size) for label in row_labels]
    column_width = max(tiles.shape[4], *(name.width + TEXT_GAP for name in names))
    names = [widen(name, column_width) for name in names]
    captions = align([text(label, size) for label in column_labels], 0.0)
    return [
        page(title, [*_draw_blocks(tiles[:, :, v], names, groups, size), caption], size)
        for v, caption in enumerate(captions)
    ]


def _draw_blocks(
    tiles: np.ndarray, names: list[Image.Image], groups: Sequence[str] | None, size: int
) -> list[Image.Image]:
    """Draw tiles `(A, S, H, W, 3)` as columns under their names, in lines of similar length."""
    cells = [
        above([name, *(widen(Image.fromarray(image), name.width) for image in samples)], GAP)
        for name, samples in zip(names, tiles, strict=True)
    ]
    sections = []
    for name, members in runs_of_groups(groups, len(tiles)):
        lines = split_evenly(len(members), AXES_PER_LINE)
        rows = [beside([cells[members[i]] for i in line], GAP) for line in lines]
        sections.append(above([*heading(name, size), above(rows, SECTION_GAP)], GAP))
    return sections


def _write_video(pages: Sequence[Image.Image], path: str | Path, milliseconds: int) -> None:
    import imageio_ffmpeg

    width, height = (side + side % 2 for side in pages[0].size)  # the codec wants even sides
    cycles = max(1, round(VIDEO_SECONDS * 1000 / (milliseconds * len(pages))))
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=1000 / milliseconds, quality=9, macro_block_size=2
    )
    writer.send(None)  # starts the encoder
    for part in cycles * list(pages):
        canvas = blank(width, height)
        canvas.paste(part)
        writer.send(canvas.tobytes())
    writer.close()
