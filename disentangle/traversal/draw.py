"""The pictures of a generator's axes, in files."""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from disentangle.models import Axis, Generator
from disentangle.traversal.animation import check_animation, save_animation
from disentangle.traversal.difference_maps import measure_changes
from disentangle.traversal.labelled_grid import traversal_grid
from disentangle.traversal.latents import being_looked_at, choose_starts
from disentangle.traversal.traverse import DEFAULT_VALUES, traverse, value_labels

Animation = Literal["webp", "gif", "mp4", "none"]
PNG_EFFORT = 3  # of 9: half the time of the usual 6, for files larger by a seventh to a half


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
    """Writes a labelled grid (PNG) and an animation of what every axis of a generator does.

    Axes of several groups, as those of an EigenGAN's blocks, get a grid and an animation each.

    Args:
        generator: Any, see `disentangle.adapters.adapt` for one from elsewhere.
        folder: Where to write; made if it is not there.
        axes: To draw; by default all that the generator has.
        latents: To start from, `(S, D)`; by default draws from the prior.
        samples: How many draws.
        seed: Of the draws.
        values: Positions along each axis, in its standard deviations, all different.
        differences: Whether a row of heat maps below each axis shows where the image changes.
        animation: Its format; `none` for no animation.
        originals: Images `(C, H, W)` in `[-1, 1]` that are shown above, by their names.
        name: Of the files, before the group.
        title: Above each picture.
        overwrite: Whether files of the same names are replaced.

    Returns:
        The files.

    Raises:
        FileExistsError: If a file is there and not to be replaced; nothing is written then.
        ValueError: If there is no axis, the animation cannot be written here, or as `traverse` and
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
    """Writes a grid and an animation of each sheet of axes; returns the files.

    Those of one sheet are drawn in threads while the next one is decoded.

    Args:
        decode: Gives images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`.
        latents: To start from, `(S, D)`, on the device of the decoder.
        sheets: Axes by the name of their files, without ending.
        folder: Made if it is not there.
        values: As in `draw_traversals`.
        differences: As there.
        animation: As there.
        originals: As there.
        title: As there.
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
    """The axes of each group by the name of their files, without ending.

    Args:
        axes: In any order.
        name: Of all files.
        several: Whether the group is a part of the name.

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
    """Raises `FileExistsError` if a file of a sheet is there, unless files may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"pictures cannot be written to {folder}: it is a file")
    if ".." in folder.parts and not folder.exists():  # its files may be there once it is made
        raise ValueError(f"pictures cannot be written to {folder}, which leads up from no folder")
    endings = ("png",) if animation == "none" else ("png", animation)
    for file in (folder / f"{name}.{ending}" for name in sheets for ending in endings):
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists, and is replaced on request only (overwrite)")


def _free(file: Path) -> Path:
    """A file that may be written: what is there goes, as it could be a link to anything."""
    file.unlink(missing_ok=True)
    return file


def _save_grid(frames: Tensor, file: Path, **options: Any) -> None:
    traversal_grid(frames, **options).save(file, compress_level=PNG_EFFORT)
