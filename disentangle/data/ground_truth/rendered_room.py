"""Solids in a room, rendered on demand: the code that the rendered 3D data sets share."""

import colorsys
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disentangle.data.base import GroundTruthData, Integers, checked_integer
from disentangle.data.ground_truth.room import COLOURS, HALF_VIEW, RoomView
from disentangle.data.ground_truth.solids import Capsule, Cube, Cylinder, Solid

FACTOR_NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
SOLIDS: tuple[Solid, ...] = (Cube(0.5), Cylinder(0.5, 0.5), Capsule(0.6, 0.0), Capsule(0.4, 0.3))

# A pixel in full light has this many 255ths of its colours: room for rounding four parts of it.
FULL = 252

CHUNK = 8  # images mixed at a time, so that they stay within the caches

Floats = NDArray[np.float64]


class RenderedRoom(GroundTruthData):
    """A cube, cylinder, ball or capsule in the corner of a room.

    A pixel is the mean of 2 × 2 rays. Where rays end does not depend on the hues. How much of each
    colour is in each pixel is computed at construction for all combinations of the other factors,
    and kept: four bytes a pixel, rounded to 255ths.

    Args:
        image_size: Height and width of an image, at least 16 pixels.
        hues: HSV hues of the floor, the walls and the object, in turns; saturation and value are 1.
        scales: Scales of the object.
        angles: Angles of the camera, in degrees. A single one is no factor.
        reach: A ball that holds every object, and its height above the floor.
        half_view: Half the side of the picture, at distance 1 of the camera.

    Raises:
        ValueError: If `image_size` is not an integer of at least 16.
    """

    def __init__(
        self,
        *,
        image_size: int,
        hues: Sequence[Floats],
        scales: Floats,
        angles: Floats,
        reach: tuple[Capsule, float],
        half_view: float = HALF_VIEW,
    ) -> None:
        sizes = (*map(len, hues), len(scales), len(SOLIDS), len(angles))
        factors = len(sizes) if len(angles) > 1 else len(sizes) - 1
        super().__init__(
            image_size=checked_integer("image_size", image_size, 16),
            image_channels=3,
            factor_names=FACTOR_NAMES[:factors],
            factor_sizes=sizes[:factors],
        )
        self._palettes = _tabulate_palettes(hues)
        mixtures = np.empty((*sizes[3:], len(COLOURS), self.image_size**2), dtype=np.uint8)
        for k, angle in enumerate(np.radians(angles)):
            view = RoomView(self.image_size, angle, reach, half_view)
            for (i, scale), (j, solid) in itertools.product(enumerate(scales), enumerate(SOLIDS)):
                mixtures[i, j, k] = np.rint(FULL * view.mix(solid, scale))
        # A tensor, since torch shares the memory of tensors with spawned workers.
        self._mixtures = torch.from_numpy(mixtures).flatten(0, 2)  # (geometries, 4, H·W)

    def _images(self, indices: Integers) -> Tensor:
        size, mixtures = self.image_size, self._mixtures.numpy()
        images = np.empty((len(indices), 3, size * size), dtype=np.uint8)
        palette, geometry = np.divmod(indices, len(mixtures))
        for start in range(0, len(indices), CHUNK):
            part = slice(start, start + CHUNK)
            # Sums of whole numbers below 2²⁴ are exact in float32, in whatever order: an image does
            # not depend on its batch. NumPy, since torch.bmm is slower for such flat matrices.
            mixed = self._palettes[palette[part]] @ mixtures[geometry[part]].astype(np.float32)
            images[part] = np.rint(mixed * np.float32(1 / 255))
        return torch.from_numpy(images).view(len(indices), 3, size, size)


def _tabulate_palettes(hues: Sequence[Floats]) -> NDArray[np.float32]:
    """Tabulate the colours to mix for each choice of hues, RGB 0 to 255, `(choices, 3, 4)`."""
    colours = [[colorsys.hsv_to_rgb(hue, 1, 1) for hue in part] for part in hues]
    white = (1, 1, 1)
    palettes = [[*chosen, white] for chosen in itertools.product(*colours)]
    return np.rint(255 * np.array(palettes)).swapaxes(1, 2).astype(np.float32)
