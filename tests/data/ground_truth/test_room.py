import itertools
import math

import numpy as np
import pytest

from disentangle.data.ground_truth import room
from disentangle.data.ground_truth.rendered_room import SOLIDS
from disentangle.data.ground_truth.rendered_shapes import ANGLES, REACH, SCALES
from disentangle.data.ground_truth.room import FLOOR, SOLID, WHITE, RoomView
from disentangle.data.ground_truth.solids import Capsule, normalise

SIZE = 64
CAPSULE = SOLIDS[3]


@pytest.fixture(scope="module", params=[ANGLES[0], 0.0, ANGLES[-2]])
def angle(request):
    return math.radians(request.param)


def mix(angle, solid, scale, size=SIZE):
    return RoomView(size, angle, REACH).mix(solid, scale).reshape(4, size, size)


def project(points, angle):
    """Row and column, in pixels, where a pinhole camera sees points `(3, N)`."""
    turn = math.pi / 4 + angle
    back = np.array([math.cos(turn), math.sin(turn), 0])
    eye = room.CAMERA_DISTANCE * back + [0, 0, room.CAMERA_HEIGHT]
    tilt = math.atan2(room.CAMERA_HEIGHT - room.TARGET_HEIGHT, room.CAMERA_DISTANCE)
    side = np.array([-math.sin(turn), math.cos(turn), 0])  # to the right of who looks from `back`
    up = np.array([0, 0, math.cos(tilt)]) - math.sin(tilt) * back
    ahead = -math.cos(tilt) * back - np.array([0, 0, math.sin(tilt)])
    offset = points - eye[:, None]
    u, v = side @ offset / (ahead @ offset), up @ offset / (ahead @ offset)
    return (1 - v / room.HALF_VIEW) * SIZE / 2, (1 + u / room.HALF_VIEW) * SIZE / 2


@pytest.mark.parametrize("solid", SOLIDS, ids=str)
def test_the_solid_is_seen_where_a_pinhole_camera_has_it(angle, solid):
    random = np.random.default_rng(0)
    rays = normalise(random.standard_normal((3, 40_000)))
    centre = np.array([[0], [0], [solid.half_height]])
    surface = rays * (9 - solid.first_hit(9 * rays, -rays)) + centre
    rows, columns = project(1.25 * surface, angle)
    seen = np.argwhere(mix(angle, solid, 1.25)[SOLID] > 0)
    expected = [[rows.min(), columns.min()], [rows.max(), columns.max()]]
    np.testing.assert_allclose([seen.min(axis=0), seen.max(axis=0) + 1], expected, atol=1)


def test_the_walls_meet_where_a_pinhole_camera_has_it(angle):
    floor, walls, solid, _ = mix(angle, SOLIDS[0], SCALES[0])
    heights = np.linspace(0, 4, 400)
    rows, columns = project(np.stack([0 * heights - 3, 0 * heights - 3, heights]), angle)
    free = [row for row in range(math.floor(rows.max()) - 1) if not solid[row].any()]
    assert len(free) > 15
    for row in free:
        step = np.abs(np.diff(walls[row, :-1])).argmax() + 1
        assert step == pytest.approx(columns[np.abs(rows - row - 0.5).argmin()], abs=1.5)
    corner = round(rows.max()), round(columns[rows.argmax()])
    assert floor[corner[0] + 2, corner[1]] > 0
    assert floor[corner[0] - 2, corner[1]] == 0


def test_the_solid_throws_its_shadow_away_from_the_light():
    angle = math.radians(ANGLES[0])  # from where it does not hide its shadow
    floor = mix(angle, CAPSULE, 1.0)[FLOOR]
    top = np.array([0, 0, 1.0])
    shadow = room.LIGHT + (top - room.LIGHT) * room.LIGHT[2] / (room.LIGHT[2] - top[2])
    row, column = (math.floor(x.item()) for x in project(shadow[:, None], angle))
    assert floor[row, column] == pytest.approx(room.AMBIENT)
    assert floor[-1].min() > 0.8


def test_parts_add_up_to_light_and_shade(angle):
    for solid in SOLIDS:
        mixture = mix(angle, solid, 1.0)
        assert mixture.min() == 0
        assert mixture.sum(axis=0).min() > room.AMBIENT - 1e-9
        assert mixture.sum(axis=0).max() <= 1
        assert (mixture[WHITE] > 0).sum() <= (mixture[SOLID] > 0).sum()


def test_what_is_far_from_the_solid_can_be_left_out(angle):
    whole = RoomView(32, angle, (Capsule(2.9, 0.0), 1.0))
    part = RoomView(32, angle, REACH)
    assert len(part.pixels) < 0.8 * len(whole.pixels)
    for solid, scale in itertools.product(SOLIDS, (SCALES[0], SCALES[-1])):
        np.testing.assert_array_equal(part.mix(solid, scale), whole.mix(solid, scale))
