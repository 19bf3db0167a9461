"""Sprites with dSprites' factors, rendered on demand: no download."""

import itertools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disentangle.data.base import GroundTruthData, Integers, checked_integer

FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
SHAPES, SCALES, POSITIONS = 3, 6, 32

# Lengths as a fraction of the canvas, at the largest scale. The three shapes cover nearly the same
# area, and on average over the scales 4.2 % of the canvas, as the official ones do.
HALF_SIDE = 0.135
SEMI_AXES = (0.2, 0.112)
HEART_UNIT = 0.157
REACH = 0.22  # no point of a sprite is farther from its centre
HEART_CENTROID = 0.4863  # of the heart's curve, above its origin, in its own unit

FINE_SIZE = 64  # the official size: from here on the 32 positions are at least a pixel apart
CHUNK = 512  # images drawn at a time, so that the index arrays stay within the caches


class RenderedSprites(GroundTruthData):
    """White squares, ellipses and hearts on black, with the factors of dSprites.

    These are *not* the pixels of the official file (`DSprites` reads that): factors, order,
    symmetries and proportions are the same, the outlines are our own. A pixel is on (255) if its
    centre is inside the shape, so images are binary and free of anti-aliasing.

    Factors: `shape` 3 (square, ellipse, heart), `scale` 6 (½ to 1), `orientation` 40 (0 to 2π,
    clockwise; the first and the last coincide, as in the official file), `x` 32 (to the right),
    `y` 32 (downward). The official colour has one value and is left out. The centre moves over
    the middle half of the canvas, so that no sprite is ever cut off. From one position to the next
    is `image_size / 64` pixels, rounded to whole pixels, and below 64 to quarters of one.

    Source: Matthey et al., dSprites, 2017 (dsprites-dataset by Google DeepMind on GitHub).

    Args:
        image_size: Height and width of an image, at least 16 pixels.
        orientations: Number of orientations; 1 leaves every sprite upright, which a
            small model learns much sooner.

    Raises:
        ValueError: If `image_size` is not an integer of at least 16, or `orientations` not one of
            at least 1.

    Examples:
        >>> sprites = RenderedSprites()
        >>> len(sprites), sprites.factor_sizes
        (737280, (3, 6, 40, 32, 32))
        >>> factors = sprites.sample_factors(5, np.random.default_rng(0))
        >>> sprites.render(factors).shape
        torch.Size([5, 1, 64, 64])
        >>> bool((sprites.factors(sprites.index(factors)) == factors).all())
        True
    """

    def __init__(self, *, image_size: int = 64, orientations: int = 40) -> None:
        super().__init__(
            image_size=checked_integer("image_size", image_size, 16),
            image_channels=1,
            factor_names=FACTOR_NAMES,
            factor_sizes=(
                SHAPES,
                SCALES,
                checked_integer("orientations", orientations, 1),
                POSITIONS,
                POSITIONS,
            ),
        )
        self._whole, self._fraction, fractions = _positions(self.image_size)
        self._fractions = len(fractions)
        self._offsets, counts = _tabulate(self.image_size, orientations, fractions)
        self._ends = counts.cumsum()
        self._counts = counts

    def _images(self, indices: Integers) -> Tensor:
        size = self.image_size
        images = np.zeros((len(indices), size * size), dtype=np.uint8)
        for start in range(0, len(indices), CHUNK):
            part = images[start : start + CHUNK]
            part.reshape(-1)[self._pixels(indices[start : start + CHUNK])] = 255
        return torch.from_numpy(images).view(len(indices), 1, size, size)

    def _pixels(self, indices: Integers) -> Integers:
        """Positions of the white pixels in the flattened images `(N·H·W,)` of the indices."""
        size, sprites = self.image_size, math.prod(self.factor_sizes[:3])
        sprite, x, y = np.unravel_index(indices, (sprites, POSITIONS, POSITIONS))
        origin = (np.arange(len(indices)) * size + self._whole[y]) * size + self._whole[x]
        tile = (self._fraction[y] * self._fractions + self._fraction[x]) * sprites + sprite
        counts = self._counts[tile]
        # Sprites have different numbers of pixels: lay the runs of the table end to end.
        shift = self._ends[tile] - counts.cumsum()
        source = np.arange(counts.sum()) + np.repeat(shift, counts)
        return self._offsets[source] + np.repeat(origin, counts)


def _positions(image_size: int) -> tuple[Integers, Integers, NDArray[np.float64]]:
    """Positions of the 32 centres along an axis, in pixels.

    Returns:
        Whole pixels `(32,)`, the number of the remaining fraction `(32,)`, and the fractions.
    """
    # A quarter of a pixel keeps neighbours apart on canvases where they are closer than one.
    parts = 1 if image_size >= FINE_SIZE else 4
    steps = POSITIONS / 2 + np.arange(POSITIONS)  # 1/64 of the canvas, from 1/4 of it
    centres = np.floor(steps * image_size * parts / (2 * POSITIONS) + 0.5).astype(np.int64)
    whole, fraction = np.divmod(centres, parts)
    fractions, number = np.unique(fraction, return_inverse=True)
    return whole, number, fractions / parts


def _tabulate(
    image_size: int, orientations: int, fractions: NDArray[np.float64]
) -> tuple[Integers, Integers]:
    """Tabulate the pixels of every sprite, relative to the pixel of its centre.

    Returns:
        Offsets in a flattened image, sprite after sprite, and the number of each sprite's pixels.
        Sprites are ordered by fraction of y, fraction of x, shape, scale, orientation.
    """
    radius = math.ceil(REACH * image_size) + 1
    pixels = np.arange(-radius, radius + 1)
    offsets, counts = [], []
    for y, x in itertools.product(fractions, repeat=2):
        right, down = pixels[None, :] + 0.5 - x, pixels[:, None] + 0.5 - y
        # Each mask has the shape (orientations, m, m).
        for mask in _masks(right / image_size, down / image_size, orientations):
            _, row, column = np.nonzero(mask)
            offsets.append(pixels[row] * image_size + pixels[column])
            counts.append(np.count_nonzero(mask, axis=(1, 2)))
    return np.concatenate(offsets), np.concatenate(counts)


def _masks(
    right: NDArray[np.float64], down: NDArray[np.float64], orientations: int
) -> list[NDArray[np.bool_]]:
    """Yield, for every shape and scale, the points that are inside it at each orientation."""
    # Modulo, so that the last orientation is the first to the bit: sin(2π) is not 0 in floats.
    turns = max(orientations - 1, 1)
    turn = 2 * np.pi * (np.arange(orientations) % turns) / turns
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    u, v = cos * right + sin * down, cos * down - sin * right  # (orientations, m, m)
    scales = np.linspace(0.5, 1, SCALES)
    return [
        inside(u / scale, v / scale)
        for inside in (_inside_square, _inside_ellipse, _inside_heart)
        for scale in scales
    ]


def _inside_square(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.maximum(np.abs(u), np.abs(v)) <= HALF_SIDE


def _inside_ellipse(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    a, b = SEMI_AXES
    return (u / a) ** 2 + (v / b) ** 2 <= 1


def _inside_heart(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The heart curve `x² + (1.1 y − |x|^⅔)² = 1`, turning about its centroid."""
    x, y = u / HEART_UNIT, HEART_CENTROID - v / HEART_UNIT  # its y points up
    return x * x + (1.1 * y - np.cbrt(x * x)) ** 2 <= 1
