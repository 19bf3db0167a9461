"""Shapes in a room with Shapes3D's factors, rendered on demand: no download."""

import colorsys
import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disentangle.data.base import GroundTruthData, Integers, checked_integer
from disentangle.data.ground_truth.room import COLOURS, RoomView
from disentangle.data.ground_truth.solids import Capsule, Cube, Cylinder, Solid

FACTOR_NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
FACTOR_SIZES = (10, 10, 10, 8, 4, 15)

SOLIDS: tuple[Solid, ...] = (Cube(0.5), Cylinder(0.5, 0.5), Capsule(0.6, 0.0), Capsule(0.4, 0.3))
SCALES = np.linspace(0.75, 1.25, FACTOR_SIZES[3])
ANGLES = np.linspace(-30, 30, FACTOR_SIZES[5])  # degrees
REACH = Capsule(1.2, 0.0), 0.8  # a ball that holds all of them, and its height
# A pixel in full light has this many 255ths of its colours: room for rounding four parts of it.
FULL = 252

CHUNK = 8  # images mixed at a time, so that they stay within the caches


class RenderedShapes(GroundTruthData):
    """A cube, cylinder, ball or capsule in the corner of a room, with the factors of Shapes3D.

    These are *not* the pixels of the official file: factors, their order and the kind of scene are
    the same, proportions and light are our own. A pixel is the mean of 2 × 2 rays.

    Factors: `floor_hue` 10, `wall_hue` 10 and `object_hue` 10 (0 to 0.9 in HSV, from red, fully
    saturated), `scale` 8 (0.75 to 1.25), `shape` 4 (cube, cylinder, sphere, capsule),
    `orientation` 15 (the camera turns about the object, −30° to 30°; light and object stay).

    Where rays end does not depend on the hues. How much of each colour is in each pixel is computed
    at construction for all 480 combinations of the other factors, and kept: four bytes a pixel, 7.9
    MB at 64 × 64, rounded to 255ths.

    Source: Burgess and Kim, 3D Shapes, 2018 (3d-shapes by Google DeepMind on GitHub).

    Args:
        image_size: Height and width of an image, at least 16 pixels.

    Raises:
        ValueError: If `image_size` is not an integer of at least 16.

    Examples:
        >>> shapes = RenderedShapes(image_size=32)
        >>> len(shapes), shapes.factor_sizes
        (480000, (10, 10, 10, 8, 4, 15))
        >>> factors = shapes.sample_factors(5, np.random.default_rng(0))
        >>> shapes.render(factors).shape
        torch.Size([5, 3, 32, 32])
    """

    def __init__(self, *, image_size: int = 64) -> None:
        super().__init__(
            image_size=checked_integer("image_size", image_size, 16),
            image_channels=3,
            factor_names=FACTOR_NAMES,
            factor_sizes=FACTOR_SIZES,
        )
        self._palettes = _tabulate_palettes()
        # A tensor, since torch shares the memory of tensors with spawned workers.
        self._mixtures = torch.from_numpy(_tabulate_mixtures(self.image_size))

    def _images(self, indices: Integers) -> Tensor:
        size, mixtures = self.image_size, self._mixtures.numpy()
        images = np.empty((len(indices), 3, size * size), dtype=np.uint8)
        palette, geometry = np.divmod(indices, len(mixtures))  # the last three factors
        for start in range(0, len(indices), CHUNK):
            part = slice(start, start + CHUNK)
            # Sums of whole numbers below 2²⁴ are exact in float32, in whatever order: an image does
            # not depend on its batch. NumPy, since torch.bmm is slower for such flat matrices.
            mixed = self._palettes[palette[part]] @ mixtures[geometry[part]].astype(np.float32)
            images[part] = np.rint(mixed * np.float32(1 / 255))
        return torch.from_numpy(images).view(len(indices), 3, size, size)


def _tabulate_palettes() -> NDArray[np.float32]:
    """Tabulate the colours to mix for each choice of hues, RGB 0 to 255, `(1000, 3, 4)`."""
    hues = [colorsys.hsv_to_rgb(k / 10, 1, 1) for k in range(10)]
    white = (1, 1, 1)
    palettes = [[*chosen, white] for chosen in itertools.product(hues, repeat=3)]
    return np.rint(255 * np.array(palettes)).swapaxes(1, 2).astype(np.float32)


def _tabulate_mixtures(image_size: int) -> NDArray[np.uint8]:
    """Tabulate the share of each colour in each pixel, in 255ths, `(480, 4, H·W)`."""
    shape = (*FACTOR_SIZES[3:], len(COLOURS), image_size**2)
    mixtures = np.empty(shape, dtype=np.uint8)
    for k, angle in enumerate(np.radians(ANGLES)):
        view = RoomView(image_size, angle, REACH)
        for (i, scale), (j, solid) in itertools.product(enumerate(SCALES), enumerate(SOLIDS)):
            mixtures[i, j, k] = np.rint(FULL * view.mix(solid, scale))
    return mixtures.reshape(-1, *shape[-2:])
