import numpy as np
import pytest
import torch

from disentangle.data import RenderedScene

SIZES = (10, 10, 10, 8, 4)
FLOOR, WALL, OBJECT, SCALE, SHAPE = range(5)
GEOMETRIES = np.indices(SIZES[3:]).reshape(2, -1).T


@pytest.fixture(scope="module")
def scene():
    return RenderedScene(image_size=32)


def vary(row, factor):
    """The row with every value of a factor."""
    rows = np.tile(row, (SIZES[factor], 1))
    rows[:, factor] = np.arange(SIZES[factor])
    return rows


def draw_geometries(scene, *hues):
    """All sizes and shapes in the same three hues."""
    return scene.render([[*hues, *geometry] for geometry in GEOMETRIES])


def test_factors(scene):
    assert scene.factor_names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape")
    assert scene.factor_sizes == SIZES
    assert len(scene) == 32_000
    assert (scene.image_size, scene.image_channels) == (32, 3)


def test_the_red_channel_shows_size_and_shape_alone(scene):
    random = np.random.default_rng(0)
    expected = draw_geometries(scene, 0, 0, 0)[:, 0]
    assert len(expected.flatten(1).unique(dim=0)) == len(GEOMETRIES)
    for hues in random.integers(0, 10, (5, 3)):
        assert torch.equal(draw_geometries(scene, *hues)[:, 0], expected)


def test_the_object_is_fully_red_and_the_room_not_at_all(scene):
    red = draw_geometries(scene, 3, 4, 5)[:, 0]
    # From red the object turns to yellow: its pixels are those in which the green channel changes.
    yellow, other = draw_geometries(scene, 3, 4, 9), draw_geometries(scene, 3, 4, 5)
    is_object = (yellow != other).any(dim=1)
    assert torch.equal(red > 0, is_object)
    assert red.amax(dim=(1, 2)).min() > 0.8 * 255  # in the light


@pytest.mark.parametrize(
    ("factor", "pixel", "first", "last"),
    [
        (FLOOR, (-1, 0), (0, 1, 0), (0, 0, 1)),
        (WALL, (0, 0), (0, 1, 2 / 3), (0, 0, 1)),
        (OBJECT, (22, 16), (1, 0, 1), (1, 1, 0)),
    ],
)
def test_hues_form_an_arc(scene, factor, pixel, first, last):
    colours = scene.render(vary([0, 0, 0, 3, 2], factor))[(..., *pixel)].double()
    colours = colours / colours.amax(dim=1, keepdim=True)
    ends = torch.tensor([first, last], dtype=torch.float64)
    torch.testing.assert_close(colours[[0, -1]], ends, atol=0.02, rtol=0)
    steps = colours.diff(dim=0).abs().sum(dim=1)
    assert steps.max() < 1.1 * steps.median()  # no jump
    assert (colours[0] - colours[-1]).abs().sum() > 0.7 * steps.sum()


def test_objects_grow_with_scale_and_fit_the_picture_but_for_the_largest(scene):
    for shape in range(SIZES[SHAPE]):
        red = scene.render(vary([0, 0, 0, 0, shape], SCALE))[:, 0]
        assert (red.count_nonzero(dim=(1, 2)).diff() > 0).all()
        border = torch.cat([red[:, [0, -1]].flatten(1), red[:, :, [0, -1]].flatten(1)], dim=1)
        assert not border[:6].any()


def test_an_image_does_not_depend_on_its_batch(scene):
    rows = scene.sample_factors(50, np.random.default_rng(0))
    alone = torch.stack([scene.render([row])[0] for row in rows])
    assert torch.equal(scene.render(rows), alone)
    parts = [scene.render(part) for part in np.split(rows, [3, 20])]
    assert torch.equal(torch.cat(parts), alone)


@pytest.mark.parametrize("size", [15, 0, 64.0, True, "64"])
def test_bad_image_size(size):
    with pytest.raises(ValueError, match="image_size must be an integer of at least 16, got"):
        RenderedScene(image_size=size)


def test_it_has_no_orientation(scene):
    with pytest.raises(ValueError, match=r"factors must have shape \(N, 5\), got \(1, 6\)"):
        scene.render([[0] * 6])
