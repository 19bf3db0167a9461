"""Convex solids about the origin, and their intersections with rays.

Points, normals and rays are arrays `(3, …)` of x, y and z. A ray is an origin and a direction of
any length, which is the unit of the distances along it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Solid(ABC):
    """A convex solid with its centre in the origin and its axis along z."""

    @property
    @abstractmethod
    def half_height(self) -> float:
        """Distance from its centre to its top and bottom."""

    @abstractmethod
    def interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Distances `(…)` at which lines enter and leave; a line that misses leaves before."""

    @abstractmethod
    def normals(self, points: Array) -> Array:
        """Outward unit normals `(3, …)` at points `(3, …)` of the surface."""

    def first_hit(self, origins: Array, directions: Array) -> Array:
        """Distances `(…)` at which rays from outside enter; infinite where they miss.

        Examples:
            >>> ball = Capsule(radius=1.0, half_length=0.0)
            >>> above = np.array([[0.0], [0.0], [3.0]])
            >>> ball.first_hit(above, np.array([[0.0, 0.0], [0.0, 0.0], [-1.0, 1.0]]))
            array([ 2., inf])
        """
        enter, leave = self.interval(origins, directions)
        return np.where((enter <= leave) & (enter > 0), enter, np.inf)


@dataclass(frozen=True)
class Cube(Solid):
    """A cube with its faces across the axes.

    Attributes:
        half_side: Half the length of an edge.
    """

    half_side: float

    @property
    def half_height(self) -> float:
        """Half the length of an edge."""
        return self.half_side

    def interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Distances at which lines are between all three pairs of faces."""
        enter, leave = _between_planes(origins, directions, self.half_side)
        return enter.max(axis=0), leave.min(axis=0)

    def normals(self, points: Array) -> Array:
        """Normals of the face that each point is on."""
        face = np.abs(points).argmax(axis=0)
        return np.stack([np.where(face == axis, np.sign(points[axis]), 0.0) for axis in range(3)])


@dataclass(frozen=True)
class Cylinder(Solid):
    """An upright cylinder with flat ends.

    Attributes:
        radius: Radius of the ends.
        half_length: Half the distance of the ends.
    """

    radius: float
    half_length: float

    @property
    def half_height(self) -> float:
        """Half the distance of the ends."""
        return self.half_length

    def interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Distances at which lines are within the round side and between the ends."""
        side = _within_radius(origins[:2], directions[:2], self.radius)
        ends = _between_planes(origins[2], directions[2], self.half_length)
        return np.maximum(side[0], ends[0]), np.minimum(side[1], ends[1])

    def normals(self, points: Array) -> Array:
        """Normals along the axis on the ends, away from it on the side."""
        x, y, z = points
        on_end = np.abs(z) / self.half_length > np.hypot(x, y) / self.radius
        return normalise(np.stack([np.where(on_end, 0, x), np.where(on_end, 0, y), z * on_end]))


@dataclass(frozen=True)
class Capsule(Solid):
    """An upright cylinder with half a ball on each end; a ball if its length is 0.

    Attributes:
        radius: Radius of the side and of the ends.
        half_length: Half the length of the straight part.
    """

    radius: float
    half_length: float

    @property
    def half_height(self) -> float:
        """Half the length of the straight part and the radius of an end."""
        return self.half_length + self.radius

    def interval(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Distances at which lines are in the straight part or in the ball at either end."""
        parts = [Cylinder(self.radius, self.half_length).interval(origins, directions)]
        for z in (-self.half_length, self.half_length):
            shifted = np.stack([origins[0], origins[1], origins[2] - z])
            parts.append(_within_radius(shifted, directions, self.radius))
        # The parts make up a convex solid, so that their intervals join without a gap.
        enter = [np.where(first <= last, first, np.inf) for first, last in parts]
        leave = [np.where(first <= last, last, -np.inf) for first, last in parts]
        return np.minimum.reduce(enter), np.maximum.reduce(leave)

    def normals(self, points: Array) -> Array:
        """Normals away from the nearest point of the axis between the centres of the two balls."""
        x, y, z = points
        return normalise(np.stack([x, y, z - z.clip(-self.half_length, self.half_length)]))


def normalise(vectors: Array) -> Array:
    """Scale vectors `(3, …)` to length 1."""
    return vectors / np.sqrt(dot(vectors, vectors))


def dot(a: Array, b: Array) -> Array:
    """Scalar products `(…)` of vectors `(n, …)`."""
    return (a * b).sum(axis=0)


def _between_planes(o: Array, d: Array, half: float) -> tuple[Array, Array]:
    """Interval of `t` in which each coordinate of `o + t d` is between `-half` and `half`."""
    # A line along the planes never meets them: ±inf, or NaN within a plane, which counts as a miss.
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = (-half - o) / d, (half - o) / d
    return np.minimum(first, second), np.maximum(first, second)


def _within_radius(o: Array, d: Array, radius: float) -> tuple[Array, Array]:
    """Interval of `t` in which `o + t d` is no farther than `radius` from the origin."""
    a, b, c = dot(d, d), dot(o, d), dot(o, o) - radius**2
    discriminant = b * b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        enter, leave = (-b - root) / a, (-b + root) / a
    # A line along the axis is inside all the way or not at all.
    along = a == 0
    inside = np.where(along, c <= 0, discriminant >= 0)
    enter, leave = np.where(along, -np.inf, enter), np.where(along, np.inf, leave)
    return np.where(inside, enter, np.inf), np.where(inside, leave, -np.inf)
