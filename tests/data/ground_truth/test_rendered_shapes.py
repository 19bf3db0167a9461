import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disentangle.data import RenderedShapes

NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
SIZES = (10, 10, 10, 8, 4, 15)
FLOOR, WALL, OBJECT, SCALE, SHAPE, ORIENTATION = range(6)
GEOMETRIES = np.indices(SIZES[3:]).reshape(3, -1).T

factors = st.tuples(*(st.integers(0, size - 1) for size in SIZES))
modest = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def shapes():
    return RenderedShapes(image_size=32)


def vary(row, factor):
    """The row with every value of a factor."""
    rows = np.tile(row, (SIZES[factor], 1))
    rows[:, factor] = np.arange(SIZES[factor])
    return rows


def changed_pixels(data, row, factor):
    """Where images differ over the values of a factor, bool `(H, W)`."""
    images = data.render(vary(row, factor))
    return (images != images[:1]).any(dim=0).any(dim=0).numpy()


def test_factors_and_order_are_those_of_shapes3d(shapes):
    assert shapes.factor_names == NAMES
    assert shapes.factor_sizes == SIZES
    assert len(shapes) == 480_000
    assert shapes.factors([0, 1, 15, 60, 480, 4_800, 48_000]).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("size", [16, 48, 64])
def test_the_scene_is_the_same_at_other_sizes(size, shapes):
    data = RenderedShapes(image_size=size)
    rows = data.sample_factors(40, np.random.default_rng(0))
    images, expected = data.render(rows), shapes.render(rows)
    assert images.shape == (40, 3, size, size)
    assert images.dtype == torch.uint8
    assert (data.image_size, data.image_channels) == (size, 3)
    tiles = [torch.nn.functional.adaptive_avg_pool2d(x.float(), 16) for x in (images, expected)]
    assert (tiles[0] - tiles[1]).abs().mean() < 3


@modest
@given(row=factors)
def test_every_value_of_every_factor_makes_another_image(shapes, row):
    for factor, size in enumerate(SIZES):
        images = shapes.render(vary(row, factor))
        assert len(images.flatten(1).unique(dim=0)) == size, NAMES[factor]


@pytest.mark.parametrize("hue", [0, 5])
def test_no_two_geometries_look_alike_even_in_one_hue(shapes, hue):
    images = shapes.render(np.pad(GEOMETRIES, ((0, 0), (3, 0)), constant_values=hue))
    assert len(images.flatten(1).unique(dim=0)) == len(GEOMETRIES)


@modest
@given(row=factors, other=factors)
def test_a_hue_changes_the_same_pixels_whatever_the_others(shapes, row, other):
    recoloured = (*other[:3], *row[3:])
    regions = [changed_pixels(shapes, row, factor) for factor in (FLOOR, WALL, OBJECT)]
    for factor, region in enumerate(regions):
        assert np.array_equal(region, changed_pixels(shapes, recoloured, factor))
    assert np.logical_or.reduce(regions).all()
    assert np.mean(np.sum(regions, axis=0) > 1) < 0.15  # the edges
    assert regions[FLOOR][-1].all()
    assert regions[WALL][0].all()
    assert not regions[WALL][-1].any()
    assert not regions[OBJECT][[0, -1]].any()
    assert not regions[FLOOR][0].any()


def test_hues_are_evenly_spaced_from_red(shapes):
    corner = shapes.render(vary([0, 3, 3, 2, 1, 7], FLOOR))[:, :, -1, 0]
    hues = corner / corner.amax(dim=1, keepdim=True)
    reference = [[1, 0, 0], [1, 0.6, 0], [0.8, 1, 0], [0.2, 1, 0], [0, 1, 0.4]]
    reference += [[0, 1, 1], [0, 0.4, 1], [0.2, 0, 1], [0.8, 0, 1], [1, 0, 0.6]]
    torch.testing.assert_close(hues, torch.tensor(reference), atol=0.01, rtol=0)


def test_a_red_room_is_red_and_its_highlights_are_pale(shapes):
    images = shapes.render(np.pad(GEOMETRIES, ((0, 0), (3, 0))))
    red, green, blue = images.unbind(dim=1)
    assert torch.equal(green, blue)
    assert (red > green).all()  # what overflows would be dark
    assert green.amax(dim=(1, 2)).min() == 0
    assert 20 < green.max() < 100
    assert red.min() > 0.4 * 255
    assert red.max() > 0.9 * 255


@modest
@given(row=factors)
def test_objects_grow_with_scale(shapes, row):
    areas = []
    for scale in range(8):
        row = (*row[:3], scale, *row[4:])
        areas.append(np.count_nonzero(changed_pixels(shapes, row, OBJECT)))
    assert all(small < large for small, large in itertools.pairwise(areas))
    assert 1.8 < areas[-1] / areas[0] < 5  # (1.25 / 0.75)², more since the largest is nearer


@modest
@given(rows=st.lists(factors, min_size=1, max_size=20))
def test_an_image_does_not_depend_on_its_batch(shapes, rows):
    alone = [shapes.render([row])[0] for row in rows]
    assert torch.equal(shapes.render(rows), torch.stack(alone))
    assert torch.equal(shapes.__getitems__(shapes.index(rows)), torch.stack(alone))


def test_every_instance_and_copy_draws_the_same(shapes):
    rows = shapes.sample_factors(500, np.random.default_rng(1))
    images = shapes.render(rows)
    assert torch.equal(images, RenderedShapes(image_size=32).render(rows))
    assert torch.equal(images, pickle.loads(pickle.dumps(shapes)).render(torch.from_numpy(rows)))
    assert torch.equal(images[3], shapes[shapes.index(rows)[3]])


def test_empty_batches(shapes):
    assert shapes.__getitems__([]).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 0, 0, 8, 0, 0]], "factor 'scale' must be between 0 and 7, got 8 in row 0"),
        ([[0] * 6, [-1] + [0] * 5], "factor 'floor_hue' must be between 0 and 9, got -1 in row 1"),
        ([[0.0] * 6], "factors must be integers, got float64"),
        ([[0] * 5], r"factors must have shape \(N, 6\), got \(1, 5\)"),
    ],
)
def test_bad_factors(shapes, rows, message):
    with pytest.raises(ValueError, match=message):
        shapes.render(rows)


@pytest.mark.parametrize("size", [15, 0, 64.0, True, "64"])
def test_bad_image_size(size):
    with pytest.raises(ValueError, match="image_size must be an integer of at least 16, got"):
        RenderedShapes(image_size=size)
