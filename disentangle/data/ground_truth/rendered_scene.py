"""A warm object in a cool room, which a small VAE learns to disentangle in minutes."""

import math

import numpy as np

from disentangle.data.ground_truth.rendered_room import RenderedRoom
from disentangle.data.ground_truth.solids import Capsule

# In turns. Red is 0 from green over cyan to blue, and 1 from magenta over red to yellow.
FLOOR_HUES = np.linspace(120, 240, 10) / 360
WALL_HUES = np.linspace(160, 240, 10) / 360
OBJECT_HUES = np.linspace(-60, 60, 10) / 360 % 1
SCALES = np.linspace(0.75, 1.5, 8)
ANGLES = np.zeros(1)  # the camera faces the corner
REACH = Capsule(1.4, 0.0), 0.9  # a ball that holds every object, and its height
HALF_VIEW = math.tan(math.radians(15))  # nearer than in `RenderedShapes`


class RenderedScene(RenderedRoom):
    """A warm object in a cool room: factors that a small VAE disentangles in minutes on a CPU.

    The room and the objects are those of `RenderedShapes`, seen from nearer and from one side, with
    two differences that decide how well the factors can be told apart. The hues of each part form
    an arc, not a circle, so that a single code can follow them without a jump. And the red channel
    of the object is 1 and that of the room 0, whatever their hues, so that the red channel shows
    the object's size and shape alone: in `RenderedShapes`, where any part has any hue, how much a
    change of size changes the image depends on the hues.

    Factors: `floor_hue` 10 (120° to 240° in HSV: green over cyan to blue), `wall_hue` 10 (160° to
    240°), `object_hue` 10 (−60° to 60°: magenta over red to yellow), `scale` 8 (0.75 to 1.5),
    `shape` 4 (cube, cylinder, sphere, capsule). Colours are fully saturated, and light and shade
    multiply them. The largest cube and the two largest capsules touch the border.

    Args:
        image_size: Height and width of an image, at least 16 pixels.

    Raises:
        ValueError: If `image_size` is not an integer of at least 16.

    Examples:
        >>> scene = RenderedScene(image_size=32)
        >>> len(scene), scene.factor_sizes
        (32000, (10, 10, 10, 8, 4))
        >>> factors = scene.sample_factors(5, np.random.default_rng(0))
        >>> scene.render(factors).shape
        torch.Size([5, 3, 32, 32])
    """

    def __init__(self, *, image_size: int = 64) -> None:
        super().__init__(
            image_size=image_size,
            hues=(FLOOR_HUES, WALL_HUES, OBJECT_HUES),
            scales=SCALES,
            angles=ANGLES,
            reach=REACH,
            half_view=HALF_VIEW,
        )
