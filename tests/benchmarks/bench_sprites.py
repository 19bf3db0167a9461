"""Rendered sprites per second on one thread, beside PIL drawing one polygon after another."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from disentangle.data import RenderedSprites

from .timing import median_seconds, print_table

Array = NDArray[np.float64]
BATCHES = (64, 1024)
CORNERS = 64  # of the polygons that stand for the ellipse and the heart


def outlines() -> tuple[Array, Array, Array]:
    """Corners `(P, 2)` of square, ellipse and heart at scale 1, as fractions of the canvas."""
    t = np.linspace(0, 2 * math.pi, CORNERS, endpoint=False)
    square = 0.135 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    ellipse = np.stack([0.2 * np.cos(t), 0.112 * np.sin(t)], axis=1)
    top = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    heart = 0.01 * np.stack([16 * np.sin(t) ** 3, -top], axis=1)
    return square, ellipse, heart


def draw_one_by_one(factors: NDArray[np.int64], size: int) -> torch.Tensor:
    """The straightforward way: turn, move and fill a polygon for each image `(N, 1, H, W)`."""
    shapes, images = outlines(), []
    for shape, scale, orientation, x, y in factors.tolist():
        angle = 2 * math.pi * orientation / 39
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        corners = shapes[shape] @ turn * (0.5 + scale / 10) + np.array([16 + x, 16 + y]) / 64
        image = Image.new("L", (size, size))
        ImageDraw.Draw(image).polygon((corners * size).ravel().tolist(), fill=255)
        images.append(np.asarray(image))
    return torch.from_numpy(np.stack(images)[:, None])


def measure(sprites: RenderedSprites, batch: int) -> list[str]:
    factors = sprites.sample_factors(batch, np.random.default_rng(0))
    calls = max(1, 2048 // batch)  # enough work for the clock

    def rate(draw: Callable[[], object]) -> float:
        return calls * batch / median_seconds(lambda: [draw() for _ in range(calls)])

    ours = rate(lambda: sprites.render(factors))
    plain = rate(lambda: draw_one_by_one(factors, sprites.image_size))
    return [str(batch), f"{ours:,.0f}", f"{plain:,.0f}", f"{ours / plain:.0f}"]


def main() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [measure(RenderedSprites(), batch) for batch in BATCHES]
    finally:
        torch.set_num_threads(threads)
    print_table(
        "Sprites, 64 × 64: images per second on one thread",
        ["batch", "RenderedSprites", "PIL, one by one", "ratio"],
        rows,
    )
