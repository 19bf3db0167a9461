import numpy as np
import pytest

from disentangle.data.ground_truth.solids import Capsule, Cube, Cylinder

INSIDE = {
    Cube(0.5): lambda x, y, z: (abs(x) <= 0.5) & (abs(y) <= 0.5) & (abs(z) <= 0.5),
    Cylinder(0.4, 0.7): lambda x, y, z: (np.hypot(x, y) <= 0.4) & (abs(z) <= 0.7),
    Capsule(0.6, 0.0): lambda x, y, z: x * x + y * y + z * z <= 0.36,
    Capsule(0.4, 0.3): lambda x, y, z: np.hypot(np.hypot(x, y), (abs(z) - 0.3).clip(0)) <= 0.4,
}
FAR, NEVER = 3.0, np.inf
every_solid = pytest.mark.parametrize("solid", INSIDE, ids=str)


def cast(solid, origin, direction):
    return solid.first_hit(np.array([origin], float).T, np.array([direction], float).T).item()


def random_rays(n):
    """From around towards about the middle, so that some hit and some miss."""
    random = np.random.default_rng(0)
    origins = random.standard_normal((3, n))
    origins *= 2 / np.linalg.norm(origins, axis=0)
    return origins, random.uniform(-0.9, 0.9, (3, n)) - origins


@pytest.mark.parametrize(
    ("solid", "along_x", "along_z"),
    [
        (Cube(0.5), 2.5, 2.5),
        (Cylinder(0.4, 0.7), 2.6, 2.3),
        (Capsule(0.6, 0.0), 2.4, 2.4),
        (Capsule(0.4, 0.3), 2.6, 2.3),
    ],
    ids=str,
)
def test_known_rays(solid, along_x, along_z):
    assert cast(solid, (FAR, 0, 0), (-1, 0, 0)) == pytest.approx(along_x)
    assert cast(solid, (0, -FAR, 0), (0, 1, 0)) == pytest.approx(along_x)
    assert cast(solid, (0, 0, FAR), (0, 0, -1)) == pytest.approx(along_z)
    assert solid.half_height == pytest.approx(FAR - along_z)
    assert cast(solid, (0, 0, -FAR), (0, 0, 2)) == pytest.approx(along_z / 2)
    assert cast(solid, (FAR, 0, 0), (1, 0, 0)) == NEVER  # it lies behind
    assert cast(solid, (FAR, 0, 0), (0, 0, 1)) == NEVER  # along the planes and the axis
    assert cast(solid, (FAR, 0, 2), (-1, 0, 0)) == NEVER
    assert cast(solid, (0.61, 0.61, FAR), (0, 0, -1)) == NEVER


def test_a_capsule_is_round_above_its_straight_part():
    capsule = Capsule(0.5, 1.0)
    assert cast(capsule, (FAR, 0, 0.9), (-1, 0, 0)) == pytest.approx(2.5)
    assert cast(capsule, (FAR, 0, -1.3), (-1, 0, 0)) == pytest.approx(2.6)  # 0.3² + 0.4² = 0.5²
    assert cast(capsule, (0.3, 0, FAR), (0, 0, -1)) == pytest.approx(1.6)


@every_solid
def test_rays_end_where_the_inside_begins(solid):
    origins, directions = random_rays(2000)
    distance = solid.first_hit(origins, directions)
    hit = np.isfinite(distance)
    assert 200 < hit.sum() < 1800

    def is_inside(t):
        return INSIDE[solid](*(origins + t * directions))

    assert not is_inside(np.where(hit, distance - 1e-7, 0)).any()
    # Rays that only graze are inside for a moment that steps may miss.
    after = is_inside(np.where(hit, distance + 1e-7, 0))
    assert after[hit].mean() > 0.999
    for t in np.linspace(0, 2, 400):
        assert not is_inside(t)[~hit].any()


@every_solid
def test_normals_are_across_the_surface(solid):
    origins, directions = random_rays(500)
    distance = solid.first_hit(origins, directions)
    hit = np.isfinite(distance)
    points = (origins + distance * directions)[:, hit]
    normals = solid.normals(points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1)
    cloud = np.random.default_rng(1).uniform(-0.8, 0.8, (3, 20_000))
    cloud = cloud[:, INSIDE[solid](*cloud)]
    # A convex solid lies on the inner side of every plane that touches it.
    heights = (
        np.einsum("ip,ic->pc", normals, cloud) - np.einsum("ip,ip->p", normals, points)[:, None]
    )
    assert heights.max() < 1e-9
