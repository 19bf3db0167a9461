"""The corner of a room seen by a camera, in which a lit solid stands on the floor.

Lengths are in units of the edge of a cube at scale 1. The floor is z = 0, two walls stand at
x = -WALL and y = -WALL; the camera looks over the solid, at x = y = 0, towards their corner.
Arrays of vectors are `(3, …)`.
"""

import math

import numpy as np

from disentangle.data.ground_truth.solids import Array, Capsule, Solid, dot, normalise

# What the colour of a point is a mixture of; white is the highlight of the solid.
COLOURS = FLOOR, WALLS, SOLID, WHITE = range(4)

WALL = 3.0
CAMERA_DISTANCE, CAMERA_HEIGHT, TARGET_HEIGHT = 4.4, 2.4, 0.7
HALF_VIEW = math.tan(math.radians(18))
LIGHT = np.array([-0.8, 3.8, 4.6])
AMBIENT, GLOSS, SHININESS = 0.45, 0.3, 25
SAMPLES = 2  # rays per pixel along an axis


class RoomView:
    """The room, seen by a camera that has been turned about the solid.

    Args:
        image_size: Height and width of the picture, in pixels.
        angle: Angle of the camera, in radians; at 0 it faces the corner.
        reach: A ball that holds every solid to come, and its height above the floor.
        half_view: Half the side of the picture, at distance 1.
    """

    def __init__(
        self,
        image_size: int,
        angle: float,
        reach: tuple[Capsule, float],
        half_view: float = HALF_VIEW,
    ) -> None:
        self.eye, self.rays = _cast_camera(image_size, math.pi / 4 + angle, half_view)
        self.points, normals = _end_in_room(self.eye, self.rays)
        self.to_light = LIGHT[:, None, None] - self.points
        self.light = _cosine(normals, self.to_light)
        self.is_floor = normals[2] > 0
        self.empty = self._mix_room(np.ones_like(self.is_floor)).mean(axis=2)
        self._keep_pixels_near(*reach)

    def _keep_pixels_near(self, ball: Capsule, height: float) -> None:
        """Keep only the rays of those pixels that the solid or its shadow can be in."""
        centre = np.array([0.0, 0.0, height])[:, None, None]
        seen = ball.first_hit(self.eye - centre, self.rays) < np.inf
        shaded = ball.first_hit(self.points - centre, self.to_light) < np.inf
        self.pixels = np.flatnonzero((seen | shaded).any(axis=1))
        self.rays, self.points, self.to_light = (
            vectors.take(self.pixels, axis=1) for vectors in (self.rays, self.points, self.to_light)
        )
        self.light, self.is_floor = self.light[self.pixels], self.is_floor[self.pixels]

    def mix(self, solid: Solid, scale: float) -> Array:
        """Share of each colour in each pixel, `(4, H·W)`, with a solid in the room.

        The parts of a pixel add up to 1 at most, to less where there is less light.
        """
        mixtures = self.empty.copy()
        mixtures[:, self.pixels] = self._mix_samples(solid, scale).mean(axis=2)
        return mixtures

    def _mix_samples(self, solid: Solid, scale: float) -> Array:
        """Share of each colour in the samples of the pixels, `(4, P, S)`."""
        centre = np.array([0.0, 0.0, solid.half_height])[:, None, None]

        def first_hit(origins: Array, directions: Array) -> Array:
            return solid.first_hit(origins / scale - centre, directions / scale)

        # In shade whatever the distance: nothing but the solid lies between the room and the light.
        samples = self._mix_room(first_hit(self.points, self.to_light) == np.inf)
        distance = first_hit(self.eye, self.rays)
        hit = distance < np.inf
        points = self.eye[:, 0] + distance[hit] * self.rays[:, hit]  # (3, hits)
        normals = solid.normals(points / scale - centre[:, 0])
        samples[:, hit] = _mix_solid(points, normals, self.eye[:, 0])
        return samples

    def _mix_room(self, is_lit: np.ndarray) -> Array:
        """Share of each colour in the samples of the empty room, `(4, P, S)`."""
        shade = AMBIENT + (1 - AMBIENT) * self.light * is_lit
        samples = np.zeros((len(COLOURS), *shade.shape))
        samples[FLOOR] = shade * self.is_floor
        samples[WALLS] = shade * ~self.is_floor
        return samples


def _cast_camera(image_size: int, azimuth: float, half_view: float) -> tuple[Array, Array]:
    """Return the eye `(3, 1, 1)` and directions `(3, H·W, S)` of its S rays through each pixel."""
    x, y = math.cos(azimuth) * CAMERA_DISTANCE, math.sin(azimuth) * CAMERA_DISTANCE
    eye = np.array([x, y, CAMERA_HEIGHT])
    ahead = normalise(np.array([0.0, 0.0, TARGET_HEIGHT]) - eye)
    right = normalise(np.cross(ahead, [0.0, 0.0, 1.0]))
    down = np.cross(ahead, right)
    samples = (np.arange(image_size * SAMPLES) + 0.5) * 2 / (image_size * SAMPLES) - 1
    offsets = half_view * samples.reshape(image_size, SAMPLES)  # (H, s)
    v, u = offsets[:, None, :, None], offsets[None, :, None, :]
    rays = [a + v * b + u * c for a, b, c in zip(ahead, down, right, strict=True)]  # (H, W, s, s)
    return eye[:, None, None], np.stack(rays).reshape(3, image_size**2, -1)


def _end_in_room(eye: Array, rays: Array) -> tuple[Array, Array]:
    """Points at which rays end on a wall or the floor, and the normals there, `(3, …)` each."""
    planes = np.array([-WALL, -WALL, 0.0])[:, None, None]  # of x, y and z
    with np.errstate(divide="ignore"):
        distances = np.where(rays < 0, (planes - eye) / rays, np.inf)
    nearest = distances.min(axis=0)
    return eye + nearest * rays, (distances == nearest).astype(np.float64)


def _mix_solid(points: Array, normals: Array, eye: Array) -> Array:
    """Share of each colour at points `(3, P)` of the solid's surface, `(4, P)`.

    Source: the highlight is Blinn's, 1977, https://doi.org/10.1145/563858.563893.
    """
    to_light, to_eye = normalise(LIGHT[:, None] - points), normalise(eye - points)
    shade = AMBIENT + (1 - AMBIENT) * _cosine(normals, to_light)
    gloss = GLOSS * _cosine(normals, to_light + to_eye) ** SHININESS
    mixtures = np.zeros((len(COLOURS), *shade.shape))
    mixtures[SOLID], mixtures[WHITE] = shade * (1 - gloss), gloss
    return mixtures


def _cosine(normals: Array, directions: Array) -> Array:
    """Cosines `(…)` between unit and other vectors `(3, …)`, 0 where they are negative."""
    return dot(normals, normalise(directions)).clip(0)
