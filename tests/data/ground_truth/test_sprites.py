import hashlib
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, default_convert

from disentangle.data import RenderedSprites

SPRITES = RenderedSprites()
SMALL = {size: RenderedSprites(image_size=size) for size in (16, 32, 48, 100)}
SQUARE, ELLIPSE, HEART = range(3)

factors = st.tuples(*(st.integers(0, size - 1) for size in SPRITES.factor_sizes))
modest = settings(max_examples=40, deadline=None, derandomize=True)


def image(data, *factors):
    return data.render([factors])[0, 0].numpy()


def centre(picture):
    """Centre of mass (x, y) in pixels."""
    y, x = np.nonzero(picture)
    return x.mean(), y.mean()


def cut(picture):
    """The picture's bounding box."""
    y, x = np.nonzero(picture)
    return picture[y.min() : y.max() + 1, x.min() : x.max() + 1]


def test_factors_and_order_are_those_of_dsprites():
    assert SPRITES.factor_names == ("shape", "scale", "orientation", "x", "y")
    assert SPRITES.factor_sizes == (3, 6, 40, 32, 32)
    assert len(SPRITES) == 737_280
    assert SPRITES.factors([0, 1, 32, 1024, 40_960, 245_760]).tolist() == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 1, 0],
        [0, 0, 1, 0, 0],
        [0, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
    ]


def test_images_are_binary_uint8_of_the_asked_size():
    for size, data in {64: SPRITES, **SMALL}.items():
        images = data.render(data.sample_factors(50, np.random.default_rng(0)))
        assert images.shape == (50, 1, size, size)
        assert images.dtype == torch.uint8
        assert images.unique().tolist() == [0, 255]
        assert (data.image_size, data.image_channels) == (size, 1)


def test_every_sprite_of_the_official_size_is_what_it_was():
    # No pixel centre lies within 1e-9 of an outline, so rounding cannot move one across it.
    rows = np.indices((3, 6, 40)).reshape(3, -1).T
    images = SPRITES.render(np.pad(rows, ((0, 0), (0, 2)), constant_values=7))
    digest = hashlib.sha256(images.numpy().tobytes()).hexdigest()
    assert digest.startswith("6eb089d29c274aaa")


@modest
@given(st.lists(factors, min_size=1, max_size=20))
def test_index_and_factors_are_inverse(rows):
    indices = SPRITES.index(rows)
    assert indices.dtype == np.int64
    assert indices.tolist() == [
        np.ravel_multi_index(row, SPRITES.factor_sizes).item() for row in rows
    ]
    assert SPRITES.factors(indices).tolist() == [list(row) for row in rows]
    assert torch.equal(SPRITES.__getitems__(indices), SPRITES.render(rows))


@modest
@given(st.lists(factors, min_size=1, max_size=20))
def test_an_image_does_not_depend_on_its_batch(rows):
    alone = [RenderedSprites().render([row])[0] for row in rows]
    assert torch.equal(SPRITES.render(rows), torch.stack(alone))


def test_a_batch_of_several_chunks_equals_its_parts():
    rows = SPRITES.sample_factors(3000, np.random.default_rng(1))
    whole = SPRITES.render(rows)
    assert torch.equal(
        whole, torch.cat([SPRITES.render(rows[i : i + 7]) for i in range(0, 3000, 7)])
    )


@pytest.mark.parametrize("data", [SPRITES, *SMALL.values()], ids=lambda data: data.image_size)
def test_no_sprite_is_empty_or_cut_off(data):
    # Sixteen positions on, a sprite is a quarter of the canvas nearer to the middle, and the same.
    rows = np.indices((3, 6, 40, 2, 2)).reshape(5, -1).T
    corners = data.render(rows * [1, 1, 1, 31, 31]).flatten(1).count_nonzero(1)
    middle = data.render(np.abs(rows - [0, 0, 0, 16, 16])).flatten(1).count_nonzero(1)
    assert (corners > 0).all()
    assert torch.equal(corners, middle)


@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE, HEART])
def test_first_and_last_orientation_coincide(shape):
    for scale in range(6):
        first, last = image(SPRITES, shape, scale, 0, 9, 9), image(SPRITES, shape, scale, 39, 9, 9)
        assert np.array_equal(first, last)


@modest
@given(st.integers(0, 5), st.integers(0, 39))
def test_symmetries(scale, orientation):
    square, ellipse, heart = (
        cut(image(SPRITES, shape, scale, orientation, 16, 16)) for shape in range(3)
    )
    assert np.array_equal(square, np.rot90(square))
    assert np.array_equal(ellipse, np.rot90(ellipse, 2))
    assert not np.array_equal(ellipse, np.rot90(ellipse))
    assert not np.array_equal(heart, np.rot90(heart, 2))


def test_upright_heart():
    heart = cut(image(SPRITES, HEART, 5, 0, 16, 16)) > 0
    assert np.array_equal(heart, heart[:, ::-1])
    assert heart[0].sum() < heart[len(heart) // 3].sum() > heart[-1].sum()
    top = np.flatnonzero(heart[0])
    assert top[0] < heart.shape[1] // 2 < top[-1]  # two lobes
    assert not heart[0, heart.shape[1] // 2]  # and a cleft between them
    assert heart[-1, heart.shape[1] // 2 - 1 : heart.shape[1] // 2 + 1].any()  # and a tip below


def test_orientation_turns_clockwise():
    heart = image(SPRITES, HEART, 5, 10, 16, 16)  # about a quarter turn: the tip points left
    y, x = np.nonzero(heart)
    tip = y[x == x.min()].mean()
    assert abs(tip - centre(heart)[1]) < 3
    assert centre(heart)[0] - x.min() > x.max() - centre(heart)[0]


@modest
@given(factors)
def test_x_moves_right_and_y_moves_down_by_one_pixel(row):
    shape, scale, orientation, x, y = row
    here = np.array(centre(image(SPRITES, *row)))
    right = np.array(centre(image(SPRITES, shape, scale, orientation, (x + 1) % 32, y)))
    below = np.array(centre(image(SPRITES, shape, scale, orientation, x, (y + 1) % 32)))
    np.testing.assert_allclose(right - here, [(x + 1) % 32 - x, 0], atol=1e-9)
    np.testing.assert_allclose(below - here, [0, (y + 1) % 32 - y], atol=1e-9)
    assert here == pytest.approx((15.5 + x, 15.5 + y), abs=1)


@pytest.mark.parametrize("size", [16, 32, 48, 100])
@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE, HEART])
def test_positions_go_on_in_one_direction_at_other_sizes(size, shape):
    along = [centre(image(SMALL[size], shape, 5, 3, x, 8)) for x in range(32)]
    down = [centre(image(SMALL[size], shape, 5, 3, 8, y)) for y in range(32)]
    step = size / 64
    for moved in (np.array(along)[:, 0], np.array(down)[:, 1]):
        expected = size / 4 - 0.5 + step * np.arange(32)
        np.testing.assert_allclose(moved, expected, atol=0.8)
        if size >= 32:  # below, a step is too small to move a binary sprite every time
            assert (np.diff(moved) > 0).all()


@modest
@given(factors)
def test_area_grows_with_scale(row):
    shape, _, orientation, x, y = row
    areas = [np.count_nonzero(image(SPRITES, shape, s, orientation, x, y)) for s in range(6)]
    assert all(small < large for small, large in itertools.pairwise(areas))
    assert areas[5] / areas[0] == pytest.approx(4, rel=0.3)


def test_samples_are_uniform_and_follow_the_generator():
    first, second = (SPRITES.sample_factors(4000, np.random.default_rng(3)) for _ in range(2))
    assert first.dtype == np.int64
    assert np.array_equal(first, second)
    for column, size in zip(first.T, SPRITES.factor_sizes, strict=True):
        counts = np.bincount(column, minlength=size)
        assert len(counts) == size
        assert abs(counts - 4000 / size).max() < 6 * np.sqrt(4000 / size)
    assert SPRITES.sample_factors(0, np.random.default_rng(0)).shape == (0, 5)


def test_empty_batches():
    assert SPRITES.__getitems__([]).shape == (0, 1, 64, 64)
    assert SPRITES.render(np.empty((0, 5), dtype=int)).shape == (0, 1, 64, 64)


def test_tensors_are_accepted():
    rows = torch.tensor([[0, 1, 2, 3, 4], [2, 5, 39, 31, 31]])
    assert torch.equal(SPRITES.render(rows), SPRITES.render(rows.numpy()))
    assert torch.equal(SPRITES.__getitems__(torch.tensor([5, 7])), SPRITES.__getitems__([5, 7]))


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([0, 737_280], "indices must be between 0 and 737279, got 737280"),
        ([-1], "indices must be between 0 and 737279, got -1"),
        ([0.5], "indices must be integers, got float64"),
        ([True], "indices must be integers, got bool"),
        (["a"], "indices must be integers, got <U1"),
        ([[1, 2]], r"indices must have shape \(N,\), got \(1, 2\)"),
    ],
)
def test_bad_indices(indices, message):
    with pytest.raises(ValueError, match=message):
        SPRITES.__getitems__(indices)
    with pytest.raises(ValueError, match=message):
        SPRITES.factors(indices)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 6, 0, 0, 0]], "factor 'scale' must be between 0 and 5, got 6 in row 0"),
        ([[0] * 5, [0, 0, 0, 0, -1]], "factor 'y' must be between 0 and 31, got -1 in row 1"),
        ([[0.0] * 5], "factors must be integers, got float64"),
        ([[0] * 4], r"factors must have shape \(N, 5\), got \(1, 4\)"),
        ([0] * 5, r"factors must have shape \(N, 5\), got \(5,\)"),
    ],
)
def test_bad_factors(rows, message):
    with pytest.raises(ValueError, match=message):
        SPRITES.render(rows)
    with pytest.raises(ValueError, match=message):
        SPRITES.index(rows)


@pytest.mark.parametrize("size", [15, 0, -64, 64.0, True, "64"])
def test_bad_image_size(size):
    with pytest.raises(ValueError, match="image_size must be an integer of at least 16, got"):
        RenderedSprites(image_size=size)


def test_negative_number_of_samples():
    with pytest.raises(ValueError, match="n must not be negative, got -1"):
        SPRITES.sample_factors(-1, np.random.default_rng(0))


def test_single_images_and_iteration():
    assert torch.equal(SPRITES[123], SPRITES.__getitems__([123])[0])
    assert torch.equal(next(iter(SPRITES)), SPRITES[0])
    with pytest.raises(ValueError, match="got 737280"):
        SPRITES[737_280]


def test_pickles():
    assert torch.equal(pickle.loads(pickle.dumps(SPRITES))[4321], SPRITES[4321])


def test_spawned_workers_fetch_whole_batches():
    batches = [[5, 1, 700_000], [2, 3]]
    loader = DataLoader(
        SPRITES,
        batch_sampler=batches,
        collate_fn=default_convert,
        num_workers=1,
        multiprocessing_context="spawn",
    )
    for batch, indices in zip(loader, batches, strict=True):
        assert torch.equal(batch, SPRITES.__getitems__(indices))


def test_one_orientation_leaves_sprites_upright():
    upright, turning = RenderedSprites(orientations=1), RenderedSprites()
    assert upright.factor_sizes == (3, 6, 1, 32, 32)
    factors = upright.sample_factors(50, np.random.default_rng(0))
    assert torch.equal(upright.render(factors), turning.render(factors))


@pytest.mark.parametrize("orientations", [0, -1, 2.0, True])
def test_orientations_are_checked(orientations):
    with pytest.raises(ValueError, match="orientations must be an integer of at least 1, got"):
        RenderedSprites(orientations=orientations)
