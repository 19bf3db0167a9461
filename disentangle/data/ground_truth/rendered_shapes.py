"""Shapes in a room with Shapes3D's factors, rendered on demand: no download."""

import numpy as np

from disentangle.data.ground_truth.rendered_room import RenderedRoom
from disentangle.data.ground_truth.solids import Capsule

FACTOR_SIZES = (10, 10, 10, 8, 4, 15)

HUES = np.arange(FACTOR_SIZES[0]) / FACTOR_SIZES[0]  # in turns
SCALES = np.linspace(0.75, 1.25, FACTOR_SIZES[3])
ANGLES = np.linspace(-30, 30, FACTOR_SIZES[5])  # degrees
REACH = Capsule(1.2, 0.0), 0.8  # a ball that holds all of them, and its height


class RenderedShapes(RenderedRoom):
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
            image_size=image_size, hues=[HUES] * 3, scales=SCALES, angles=ANGLES, reach=REACH
        )
