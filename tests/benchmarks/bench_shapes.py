"""Rendered shapes per second, beside casting the rays of one image after another."""

import itertools
from collections.abc import Callable

import numpy as np
import torch

from disentangle.data import RenderedShapes
from disentangle.data.ground_truth.rendered_room import SOLIDS
from disentangle.data.ground_truth.rendered_shapes import ANGLES, REACH, SCALES
from disentangle.data.ground_truth.room import RoomView

from .timing import median_seconds, print_table

BATCHES = (64, 1024)


def cast_one_by_one(factors: np.ndarray, size: int) -> None:
    """The straightforward way, without the colours: what keeping the geometry saves."""
    for scale, shape, orientation in factors[:, 3:]:
        view = RoomView(size, np.radians(ANGLES[orientation]), REACH)
        view.mix(SOLIDS[shape], SCALES[scale])


def measure(size: int, batch: int) -> list[str]:
    shapes = RenderedShapes(image_size=size)
    factors = shapes.sample_factors(batch, np.random.default_rng(0))
    calls = max(1, 2048 // batch)  # enough work for the clock

    def rate(draw: Callable[[], object], images: int) -> float:
        return images / median_seconds(draw)

    ours = rate(lambda: [shapes.render(factors) for _ in range(calls)], calls * batch)
    plain = rate(lambda: cast_one_by_one(factors[:32], size), 32)
    tabulating = median_seconds(lambda: RenderedShapes(image_size=size), repeats=1)
    label = f"{size} × {size}, batch {batch}"
    return [label, f"{ours:,.0f}", f"{plain:,.0f}", f"{ours / plain:.0f}", f"{tabulating:.1f}"]


def main() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [measure(size, batch) for size, batch in itertools.product((64, 128), BATCHES)]
    finally:
        torch.set_num_threads(threads)
    print_table(
        "Rendered shapes: images per second",
        ["", "RenderedShapes", "one by one", "ratio", "construction, s"],
        rows,
    )
