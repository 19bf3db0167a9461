"""`disentangle data SET`: the contents of a data set, as a picture and as a table.

The picture has a row for each factor: its values from left to right, all other factors fixed; or a
row for each class.
"""

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from torch import Tensor

from disentangle.cli.common import bad_input_exits
from disentangle.config import DATA_SETS
from disentangle.config.arguments import new_parser, parse_arguments
from disentangle.data import (
    GroundTruthData,
    ImageData,
    LabelledImages,
    describe_left_out,
    scale_pixels,
)
from disentangle.output.files import check_file, write_file
from disentangle.output.tables import Cell, format_table
from disentangle.traversal import image_grid, traversal_grid

COMMAND = "data"
MOST_COLUMNS = 15
MOST_ROWS = 20
SHEET = 64  # images of a set without factors


def main(arguments: Sequence[str]) -> int:
    """Show a data set; return the exit status."""
    with bad_input_exits(COMMAND):
        name = choose_set(arguments)
        options = parse_arguments(build_parser(name), arguments)
        file = None if options.preview is None else Path(options.preview)
        if file is not None:
            check_file(file, overwrite=options.overwrite, endings=[".png"])
        data = DATA_SETS[name](**options.as_dict().get("data", {}))
        if options.stats or file is None:
            print(describe(data))
        if line := describe_left_out(data):
            print(line)
        if file is not None:
            picture = BytesIO()
            draw_preview(data, options.seed).save(picture, "PNG")
            write_file(file, picture.getvalue(), overwrite=options.overwrite)
            print(f"preview: {file}")
    return 0


def choose_set(arguments: Sequence[str]) -> str:
    """Return the name of the data set, which decides on the options.

    Raises:
        ValueError: If there is none of that name.
    """
    if arguments and arguments[0] in DATA_SETS:
        return arguments[0]
    if not {"-h", "--help"}.isdisjoint(arguments):  # shows some choice where none was made
        return "sprites"
    given = "the name of a data set must come first"
    if arguments and not arguments[0].startswith("-"):
        given = f"no data set {arguments[0]!r}"
    raise ValueError(f"{given}; choose one of: {', '.join(DATA_SETS)}")


def build_parser(name: str) -> ArgumentParser:
    """Build the parser of the command and of a data set."""
    parser = new_parser(
        COMMAND,
        f"Options of the data set that was chosen, here {name}. Choices: {', '.join(DATA_SETS)}.",
    )
    parser.add_argument("set", type=str, help="Name of a data set; comes first.")
    parser.add_argument(
        "--preview",
        type=str,
        metavar="FILE",
        help="Draw the values of each factor, or images of each class, into a PNG.",
    )
    parser.add_argument(
        "--stats",
        action="store_true",
        help="Print the factors or classes (default without --preview).",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="Seed for the factors that a row fixes."
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace the file.")
    parser.add_class_arguments(DATA_SETS[name], "data")
    return parser


def describe(data: ImageData) -> str:
    """Return the number and shape of the images, and a table of any factors or classes."""
    shape = data.image_channels, data.image_size, data.image_size
    lines = [f"{len(data)} images of shape {shape}"]
    if isinstance(data, GroundTruthData):
        rows: list[list[Cell]] = [
            [name, size, f"0 to {size - 1}" if size > 1 else "0"]
            for name, size in zip(data.factor_names, data.factor_sizes, strict=True)
        ]
        lines.append(format_table(["factor", "size", "values"], rows))
    if isinstance(data, LabelledImages):
        counts = np.bincount(data.labels, minlength=len(data.class_names))
        rows = [[name, int(n)] for name, n in zip(data.class_names, counts, strict=True)]
        lines.append(format_table(["class", "images"], rows))
    return "\n".join(lines)


def draw_preview(data: ImageData, seed: int) -> Image.Image:
    """Draw a row for each factor or class; of a set without these, images from all over it.

    Args:
        data: Data set to draw.
        seed: Seed for the factors that a row fixes.
    """
    if isinstance(data, LabelledImages):
        return draw_classes(data)
    if not isinstance(data, GroundTruthData):
        return image_grid(scale_pixels(data.__getitems__(spread(len(data), SHEET))))
    base = data.sample_factors(1, np.random.default_rng(seed))
    return stack([draw_factor(data, base, k) for k in range(len(data.factor_names))])


def draw_classes(data: LabelledImages) -> Image.Image:
    """Draw the first images of each class, of no more classes than a sheet has rows."""
    classes = spread(len(data.class_names), MOST_ROWS)
    places = [np.flatnonzero(data.labels == k)[:MOST_COLUMNS] for k in classes]
    columns = max(1, min(map(len, places)))
    shown = [(data.class_names[k], p[:columns]) for k, p in zip(classes, places, strict=True)]
    rows = [scale_pixels(data.__getitems__(p)) for _, p in shown if len(p)]
    names = [name for name, p in shown if len(p)]
    title = f"{len(names)} of {len(data.class_names)} classes"
    return traversal_grid(torch.stack(rows)[:, None], names, [""] * columns, title=title)


def draw_factor(data: GroundTruthData, base: np.ndarray, k: int) -> Image.Image:
    """Draw the images of factors `(1, F)` whose k-th takes on its values."""
    name, size = data.factor_names[k], data.factor_sizes[k]
    values = spread(size, MOST_COLUMNS)
    factors = base.repeat(len(values), axis=0)
    factors[:, k] = values
    frames: Tensor = scale_pixels(data.render(factors))[None, None]  # (1, 1, V, C, H, W)
    shown = str(size) if len(values) == size else f"{len(values)} of {size}"
    title = f"{name} ({shown} value{'s' * (size > 1)})"
    return traversal_grid(frames, [""], [str(value) for value in values], title=title)


def spread(size: int, most: int) -> np.ndarray:
    """Return all integers from 0 to `size - 1`, or `most` of them if they are more.

    Examples:
        >>> spread(3, 5), spread(40, 5)
        (array([0, 1, 2]), array([ 0, 10, 20, 29, 39]))
    """
    return np.linspace(0, size - 1, min(size, most)).round().astype(np.int64)


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures below each other as one."""
    height = sum(picture.height for picture in pictures)
    canvas = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    y = 0
    for picture in pictures:
        canvas.paste(picture, (0, y))
        y += picture.height
    return canvas


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
