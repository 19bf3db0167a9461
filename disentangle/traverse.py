"""`disentangle traverse RUN`: pictures of what every latent axis of a run's model does.

A grid and an animation, one of each for every layer. With `--sefa`, of what the directions do that
SeFa finds in the layer that takes in the latents.
"""

import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from disentangle.commands import bad_input_exits, parse_arguments
from disentangle.models import Axis
from disentangle.parsing import new_parser
from disentangle.training.run_folder import RunFolder
from disentangle.traversal import (
    check_animation,
    measure_changes,
    save_animation,
    traversal_grid,
    traverse,
    value_labels,
)
from disentangle.viewing import View, add_view_arguments, open_view

SAMPLES = 1  # unless told otherwise
PNG_EFFORT = 3  # of 9: half the time of the usual 6, for files larger by a seventh to a half


def main(arguments: Sequence[str]) -> int:
    """Draws the traversals of a run; returns the exit status."""
    with bad_input_exits("traverse"):
        options = parse_arguments(build_parser(), arguments)
        folder = RunFolder.open(options.run)
        if folder.traversals.exists() and not folder.traversals.is_dir():
            raise ValueError(f"pictures cannot be written to {folder.traversals}: it is a file")
        if options.animation != "none":
            check_animation(f"traversal.{options.animation}")
        view = open_view(folder, options, samples=SAMPLES)
        folder.traversals.mkdir(exist_ok=True)
        files = draw(view, folder.traversals, options)
    for file in files:
        print(f"{'grid:     ' if file.suffix == '.png' else 'animation:'} {file}")
    return 0


def build_parser() -> ArgumentParser:
    """The options of the command."""
    parser = new_parser("traverse")
    parser.add_argument("run", type=str, help="A run folder.")
    add_view_arguments(parser, samples=SAMPLES)
    parser.add_argument(
        "--differences",
        action="store_true",
        help="Below each axis a row of heat maps: where the image changes, against the value "
        "nearest to 0.",
    )
    parser.add_argument(
        "--animation",
        type=Literal["webp", "gif", "mp4", "none"],
        default="webp",
        help="MP4 needs the extra `video`.",
    )
    return parser


def draw(view: View, folder: Path, options: Namespace) -> list[Path]:
    """Writes a grid and an animation of each group of axes; returns the files.

    Those of one group are drawn in threads while the next one is decoded.
    """
    several = len({axis.group for axis in view.model.axes}) > 1
    name = "sefa" if options.sefa else "traversal"
    sheets = name_sheets(view.axes, name, several=several and not options.sefa)
    title = "most active first (in brackets the variance of the image)" if options.sort else None
    jobs = {}
    with ThreadPoolExecutor() as pool:
        for name, axes in sheets.items():
            frames = traverse(view.model.decode, view.latents, axes, values=view.values)
            file = folder / f"{name}.png"
            words: dict[str, Any] = {
                "row_labels": [axis.name for axis in axes],
                "column_labels": value_labels(view.values),
                "groups": [axis.group for axis in axes],
                "title": title,
            }
            changes = measure_changes(frames, view.values) if options.differences else None
            jobs[file] = pool.submit(
                save_grid, frames, file, changes=changes, originals=view.originals, **words
            )
            if options.animation != "none":
                file = folder / f"{name}.{options.animation}"
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


def save_grid(frames: Tensor, file: Path, **options: Any) -> None:
    """Writes a `traversal_grid`."""
    traversal_grid(frames, **options).save(file, compress_level=PNG_EFFORT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
