"""Drawing of the axes of a generator to files."""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from disentangle.models import Axis, Generator
from disentangle.output.files import check_file
from disentangle.traversal.animation import check_animation, save_animation
from disentangle.traversal.difference_maps import measure_changes
from disentangle.traversal.labelled_grid import traversal_grid
from disentangle.traversal.latents import being_looked_at, choose_starts
from disentangle.traversal.traverse import DEFAULT_VALUES, traverse, value_labels

Animation = Literal["webp", "gif", "mp4", "none"]
PNG_EFFORT = 3  # compression level: half the time of the default 6, files larger by 1/7 to 1/2


def draw_traversals(
    generator: Generator,
    folder: str | Path,
    *,
    axes: Sequence[Axis] | None = None,
    latents: Tensor | None = None,
    samples: int = 1,
    seed: int = 0,
    values: Sequence[float] | Tensor = DEFAULT_VALUES,
    differences: bool = False,
    animation: Animation = "webp",
    originals: Mapping[str, Tensor] | None = None,
    name: str = "traversal",
    title: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a labelled grid (PNG) and an animation of the traversals of a generator's axes.

    Each group of axes, such as a block of an EigenGAN, gets a grid and an animation of its own.

    Args:
        generator: Any `Generator`; `disentangle.adapters.adapt` makes one of a foreign model.
        folder: Folder to write to; created if it does not exist.
        axes: Axes to draw; by default all of the generator.
        latents: Base latents `(S, D)`; by default draws from the prior.
        samples: Number of draws.
        seed: Seed for the draws.
        values: Positions along each axis, in its standard deviations, all different.
        differences: Add a row of heat maps below each axis that show where the image changes.
        animation: Format of the animation; `none` for no animation.
        originals: Images `(C, H, W)` in `[-1, 1]` to show above the grid, by name.
        name: Start of the file names, before the group.
        title: Title above each picture.
        overwrite: Replace existing files.

    Returns:
        The files.

    Raises:
        FileExistsError: If a file exists and `overwrite` is False; nothing is written then.
        ValueError: If there is no axis, a file cannot be written, or as `traverse` and
            `save_animation`.

    Examples:
        >>> import tempfile
        >>> from disentangle.models import SubspaceVAE
        >>> model = SubspaceVAE(image_size=32, code_dim=3, base_channels=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [file.name for file in draw_traversals(model, folder, values=[-2, 0, 2])]
        ['traversal.png', 'traversal.webp']
    """
    axes = generator.axes if axes is None else axes
    if not axes:
        raise ValueError("expected at least one axis, got none")
    if animation != "none":
        check_animation(f"{name}.{animation}")
    sheets = name_sheets(axes, name, several=len({axis.group for axis in axes}) > 1)
    check_free(Path(folder), sheets, animation, overwrite=overwrite)
    with being_looked_at(generator):
        return draw_sheets(
            generator.decode,
            choose_starts(generator, latents, samples=samples, seed=seed),
            sheets,
            Path(folder),
            values=values,
            differences=differences,
            animation=animation,
            originals=originals,
            title=title,
        )


def draw_sheets(
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    sheets: Mapping[str, Sequence[Axis]],
    folder: Path,
    *,
    values: Sequence[float] | Tensor,
    differences: bool,
    animation: Animation,
    originals: Mapping[str, Tensor] | None,
    title: str | None,
) -> list[Path]:
    """Write a grid and an animation of each sheet of axes, and return the files.

    One sheet is drawn in threads while the next one is decoded.

    Args:
        decode: Maps latents `(N, D)` to images `(N, C, H, W)` in `[-1, 1]`.
        latents: Base latents `(S, D)`, on the device of the decoder.
        sheets: Axes by the name of their files, without ending.
        folder: Folder to write to; created if it does not exist.
        values: Positions along each axis, in its standard deviations.
        differences: Add heat maps of the changes.
        animation: Format of the animation, or `none`.
        originals: Images to show above the grid, by name.
        title: Title above each picture.
    """
    jobs = {}
    with ThreadPoolExecutor() as pool:
        for name, axes in sheets.items():
            frames = traverse(decode, latents, axes, values=values)
            folder.mkdir(parents=True, exist_ok=True)  # not before there is something to write
            file = _free(folder / f"{name}.png")
            words: dict[str, Any] = {
                "row_labels": [axis.name for axis in axes],
                "column_labels": value_labels(values),
                "groups": [axis.group for axis in axes],
                "title": title,
            }
            changes = measure_changes(frames, values) if differences else None
            jobs[file] = pool.submit(
                _save_grid, frames, file, changes=changes, originals=originals, **words
            )
            if animation != "none":
                file = _free(folder / f"{name}.{animation}")
                jobs[file] = pool.submit(save_animation, frames, file, **words)
    for job in jobs.values():
        job.result()
    return list(jobs)


def name_sheets(axes: Sequence[Axis], name: str, *, several: bool) -> dict[str, list[Axis]]:
    """Return the axes of each group by the name of their files, without ending.

    Args:
        axes: Axes in any order.
        name: Start of all file names.
        several: Append the group to the name.

    Examples:
        >>> import torch
        >>> axes = [Axis(name, f"block {i}", torch.ones(1)) for i, name in enumerate("ab")]
        >>> list(name_sheets(axes, "traversal", several=True))
        ['traversal-block-0', 'traversal-block-1']
    """
    sheets: dict[str, list[Axis]] = {}
    for axis in axes:
        suffix = "-" + re.sub(r"[^\w.-]+", "-", axis.group) if several else ""
        sheets.setdefault(f"{name}{suffix}", []).append(axis)
    return sheets


def check_free(
    folder: Path, sheets: Mapping[str, object], animation: Animation, *, overwrite: bool
) -> None:
    """Raise unless the pictures of all sheets can and may be written; errors as in `check_file`."""
    endings = ("png",) if animation == "none" else ("png", animation)
    for file in (folder / f"{name}.{ending}" for name in sheets for ending in endings):
        check_file(file, overwrite=overwrite, new_folder=True)


def _free(file: Path) -> Path:
    """Remove an existing file, which could be a link to anything; return the path."""
    file.unlink(missing_ok=True)
    return file


def _save_grid(frames: Tensor, file: Path, **options: Any) -> None:
    traversal_grid(frames, **options).save(file, compress_level=PNG_EFFORT)
