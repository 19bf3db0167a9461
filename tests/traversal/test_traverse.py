import string
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageDraw

from disentangle.traversal import (
    DEFAULT_VALUES,
    image_grid,
    measure_changes,
    save_animation,
    traversal_grid,
    traverse,
    value_labels,
)
from disentangle.traversal.layout import text as draw_text
from disentangle.traversal.layout import text_font


@dataclass(frozen=True)
class Axis:
    direction: torch.Tensor
    std: float = 1.0


def draw_discs(z):
    """Discs of 64 px whose place and size follow the first three latents."""
    grid = torch.linspace(-1, 1, 64)
    x, y, radius = (z[:, i, None, None].tanh() for i in range(3))
    distance = ((grid - x / 2) ** 2 + (grid[:, None] - y / 2) ** 2).sqrt()
    return (20 * (0.3 + radius / 5 - distance)).tanh()[:, None]


def paint_latents(z):
    """Images of 8 px and three channels, in the colour of the first three latents."""
    return z[:, :3, None, None].expand(-1, -1, 8, 8)


AXES = [Axis(d) for d in torch.eye(4)]
Z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)) / 2


def test_the_component_is_replaced_and_the_others_stay():
    frames = traverse(paint_latents, Z, AXES, values=[-0.9, 0.1, 0.9])
    assert frames.shape == (4, 2, 3, 3, 8, 8)
    colours = frames[..., 0, 0]  # (A, S, V, 3)
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        expected = torch.tensor([-0.9, 0.1, 0.9]).expand(2, 3)
        torch.testing.assert_close(colours[axis, ..., axis], expected)
        kept = Z[:, None, others].clamp(-1, 1).expand(2, 3, 2)
        torch.testing.assert_close(colours[axis][..., others], kept)
    torch.testing.assert_close(colours[3], Z[:, None, :3].clamp(-1, 1).expand(2, 3, 3))


def test_values_are_in_standard_deviations_along_oblique_directions():
    axis = Axis(torch.tensor([0.6, 0.8, 0.0, 0.0]), std=0.5)
    seen = []

    def decode(z):
        seen.append(z)
        return paint_latents(z)

    traverse(decode, Z, [axis], values=[-1.0, 2.0])
    moved = torch.cat(seen).view(2, 2, 4)
    torch.testing.assert_close(moved @ axis.direction, torch.tensor([-0.5, 1.0]).expand(2, 2))
    orthogonal = torch.tensor([0.8, -0.6, 0.0, 0.0])
    torch.testing.assert_close(moved @ orthogonal, (Z @ orthogonal)[:, None].expand(2, 2))


def test_batches_are_full_and_without_gradient():
    sizes = []
    layer = torch.nn.Linear(4, 4)

    def decode(z):
        sizes.append(len(z))
        return paint_latents(layer(z))

    frames = traverse(decode, Z, AXES, batch_size=30)
    assert sizes == [30, 30, 12]  # 4 axes, 2 samples, 9 values
    assert not frames.requires_grad
    torch.testing.assert_close(frames, traverse(decode, Z, AXES, batch_size=1000))


def test_images_are_clamped():
    frames = traverse(lambda z: 10 * paint_latents(z), Z, AXES)
    assert frames.min() == -1
    assert frames.max() == 1


@pytest.mark.parametrize(
    ("z", "axes", "options", "message"),
    [
        (Z[0], AXES, {}, r"latents of shape \(S, D\).*got \(4,\)"),
        (Z, [], {}, "at least one axis.*got .* 0 axes"),
        (Z, AXES, {"values": []}, r"a list of values .*shape \(0,\)"),
        (Z, AXES, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (Z, [Axis(torch.ones(3))], {}, r"directions must have the shape \(4,\), got \(3,\)"),
        (Z, [Axis(torch.ones(4))], {}, r"directions must have length 1, got lengths \[2.0\]"),
    ],
)
def test_bad_traversals_are_refused(z, axes, options, message):
    with pytest.raises(ValueError, match=message):
        traverse(paint_latents, z, axes, **options)


def test_bad_images_are_refused():
    with pytest.raises(ValueError, match=r"shape \(64, C, H, W\), got \(64, 4\)"):
        traverse(lambda z: z, Z, AXES)
    with pytest.raises(ValueError, match="finite"):
        traverse(lambda z: paint_latents(z).log(), Z, AXES)


def test_value_labels():
    assert value_labels(torch.linspace(-3, 3, 8))[:2] == ["-3 std", "-2.14 std"]
    assert value_labels([-0.001, 0.0, 1.0]) == ["0", "0", "+1 std"]


def find_tiles(picture, tile):
    """How many tiles lie beside and below each other in a grid of black tiles."""
    black = (np.asarray(picture.convert("L")) == 0).astype(int)
    width, height = black.sum(axis=1).max() / tile, black.sum(axis=0).max() / tile
    return round(width), round(height)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "tile"), [(64, 64), (32, 64), (8, 64), (48, 96), (80, 80)])
def test_grid_has_a_tile_for_every_frame(channels, size, tile):
    frames = -torch.ones(5, 2, 3, channels, size, size)
    grid = traversal_grid(frames, list("abcde"), list("xyz"), groups=list("pppqq"))
    assert find_tiles(grid, tile) == (6, 5)
    assert grid.mode == "RGB"


def test_scale_enlarges_by_repeating_pixels():
    frames = torch.rand(1, 1, 1, 3, 8, 8) * 2 - 1
    grid = np.asarray(traversal_grid(frames, ["a"], ["x"], scale=16))
    expected = ((frames[0, 0, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    bottom_right = grid[-128 - 12 : -12, -128 - 12 : -12]
    np.testing.assert_array_equal(bottom_right, expected.repeat(16, 0).repeat(16, 1))


def test_margins_are_white_whatever_the_labels_are():
    long = "a name that is much longer than any tile (and has brackets, gjpqy|)"
    frames = -torch.ones(2, 2, 2, 1, 8, 8)
    for labels in ([long, "b"], ["a", "b"]):
        for options in ({}, {"groups": [long, "q"]}, {"title": 3 * long}):
            grid = traversal_grid(frames, labels, labels[::-1], **options)
            left, top, right, bottom = ImageChops.invert(grid).getbbox()
            assert min(left, top, grid.width - right, grid.height - bottom) >= 10


@pytest.mark.parametrize("size", [14, 17, 28, 34])
def test_no_character_is_clipped(size):
    font = text_font(size)
    for text in [*string.printable[:94], "-2.25 std", "block 1 (jQ|)", "…±° élan θ ёлка"]:
        ample = Image.new("RGB", (40 * size, 4 * size), "white")
        ImageDraw.Draw(ample).text((size, size), text, fill="black", font=font)
        ink = ImageChops.invert(ample).getbbox()
        drawn = ImageChops.invert(draw_text(text, size)).getbbox()
        assert (drawn[2] - drawn[0], drawn[3] - drawn[1]) == (ink[2] - ink[0], ink[3] - ink[1])


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[0mb", "a\ud800b", "\r", "\u2028"], ids=ascii)
def test_a_name_is_one_line(name):
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    assert np.array_equal(draw_text(name, 14), draw_text(plain, 14))


@pytest.mark.parametrize(
    ("frames", "rows", "columns", "options", "message"),
    [
        (
            torch.zeros(2, 3, 1, 8, 8),
            "ab",
            "xyz",
            {},
            r"\(A, S, V, C, H, W\), got \(2, 3, 1, 8, 8\)",
        ),
        (torch.zeros(2, 1, 3, 2, 8, 8), "ab", "xyz", {}, r"one or three channels.*2, 8, 8"),
        (torch.zeros(2, 0, 3, 1, 8, 8), "ab", "xyz", {}, "at least one pixel"),
        (torch.full((2, 1, 3, 1, 8, 8), torch.nan), "ab", "xyz", {}, "finite"),
        (torch.zeros(2, 1, 3, 1, 8, 8), "abc", "xyz", {}, "row_labels must have 2 entries, got 3"),
        (torch.zeros(2, 1, 3, 1, 8, 8), "ab", "x", {}, "column_labels must have 3 entries, got 1"),
        (torch.zeros(2, 1, 3, 1, 8, 8), "ab", "xyz", {"groups": "a"}, "groups must have 2 entries"),
        (
            torch.zeros(2, 1, 3, 1, 8, 8),
            "ab",
            "xyz",
            {"scale": 0},
            "scale must be at least 1, got 0",
        ),
    ],
)
def test_bad_grids_are_refused(frames, rows, columns, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        traversal_grid(frames, list(rows), list(columns), **options)
    with pytest.raises(ValueError, match=message):
        save_animation(frames, tmp_path / "a.webp", list(rows), list(columns), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("decode", [draw_discs, paint_latents])
def test_animation_goes_forth_and_back(decode, tmp_path):
    frames = traverse(decode, Z, AXES)
    labels = ["x", "y", "size", "nothing"]
    path = tmp_path / "traversal.webp"
    save_animation(frames, path, labels, value_labels(DEFAULT_VALUES), groups=list("ppqq"))
    with Image.open(path) as animation:
        assert (animation.format, animation.n_frames) == ("WEBP", 16)
        assert animation.info["loop"] == 0
        pages = []
        for i in range(16):
            animation.seek(i)
            pages.append(np.asarray(animation.convert("L"), dtype=int))
    assert np.abs(pages[1] - pages[15]).mean() < np.abs(pages[1] - pages[8]).mean()


def test_animation_of_a_dead_generator_keeps_its_frames(tmp_path):
    save_animation(torch.zeros(12, 1, 4, 1, 8, 8), tmp_path / "a.webp", ["a"] * 12, list("wxyz"))
    with Image.open(tmp_path / "a.webp") as animation:
        assert animation.n_frames == 6


def test_bad_animations_are_refused(tmp_path):
    frames = torch.zeros(1, 1, 2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"must end in one of .webp, .gif, .mp4, got .*a.apng"):
        save_animation(frames, tmp_path / "a.apng", ["a"], ["x", "y"])
    with pytest.raises(ValueError, match="at least two values with different labels"):
        save_animation(frames, tmp_path / "a.webp", ["a"], ["x", "x"])
    with pytest.raises(ValueError, match="at least two values"):
        save_animation(frames[:, :, :1], tmp_path / "a.webp", ["a"], ["x"])
    tall = frames.expand(1, 260, 2, 1, 8, 8)
    with pytest.raises(ValueError, match="at most 16383 pixels along a side"):
        save_animation(tall, tmp_path / "a.webp", ["a"], ["x", "y"])
    assert not list(tmp_path.iterdir())


def test_many_samples_go_below_each_other():
    frames = -torch.ones(2, 8, 9, 1, 64, 64)
    grid = traversal_grid(frames, ["a", "b"], value_labels(DEFAULT_VALUES))
    black = (np.asarray(grid.convert("L")) == 0).sum(axis=1)
    assert (black >= 18 * 64).sum() == 4 * 2 * 64  # two samples beside each other in four lines
    assert grid.width < 1600


def test_changes_show_where_an_axis_acts():
    frames = -torch.ones(2, 1, 3, 3, 8, 8)
    frames[0, 0, 0, :, :4] = 1  # the first axis acts on the upper half, at the first value
    frames[0, 0, 2, 0, 4:] = 1  # and on the red of the lower half at the last
    changes = measure_changes(frames, [-1.0, 0.1, 1.0])
    assert changes.shape == (2, 1, 3, 8, 8)
    torch.testing.assert_close(changes[0, 0, 0, :4], torch.ones(4, 8))
    torch.testing.assert_close(changes[0, 0, 2, 4:], torch.full((4, 8), 1 / 3))
    assert changes.sum() == pytest.approx(32 + 32 / 3)
    grid = traversal_grid(frames, ["a", "b"], list("xyz"), changes=changes)
    without = traversal_grid(frames, ["a", "b"], list("xyz"))
    assert grid.height > without.height + 2 * 64
    yellow = (np.asarray(grid) == [252, 254, 164]).all(axis=2)  # the largest change
    assert yellow[40:].sum() == 64 * 32


def test_axes_that_do_nothing_change_nothing():
    frames = torch.zeros(1, 1, 2, 1, 8, 8)
    changes = measure_changes(frames, [0.0, 1.0])
    assert not changes.any()
    assert traversal_grid(frames, ["a"], ["x", "y"], changes=changes).mode == "RGB"


def test_bad_changes_are_refused():
    frames = torch.zeros(1, 1, 2, 1, 8, 8)
    with pytest.raises(ValueError, match="2 values are needed, one for each frame, got 3"):
        measure_changes(frames, [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"changes must have the shape .*got \(1, 8, 8\)"):
        traversal_grid(frames, ["a"], ["x", "y"], changes=torch.zeros(1, 8, 8))


def test_originals_stand_above_the_rows():
    frames = torch.zeros(1, 1, 2, 1, 8, 8)
    white, black = torch.ones(1, 8, 8), -torch.ones(1, 8, 8)
    grid = traversal_grid(frames, ["a"], ["x", "y"], originals={"image": white, "made": black})
    pixels = np.asarray(grid.convert("L"))
    rows = np.flatnonzero((pixels == 0).sum(axis=1) >= 64)
    grey = np.flatnonzero((pixels == 128).sum(axis=1) >= 128)
    assert len(rows) == len(grey) == 64
    assert rows.max() < grey.min()


@pytest.mark.parametrize("ending", ["gif", "GIF"])
def test_gif(ending, tmp_path):
    frames = traverse(paint_latents, Z, AXES)
    path = tmp_path / f"a.{ending}"
    save_animation(frames, path, list("abcd"), value_labels(DEFAULT_VALUES))
    with Image.open(path) as animation:
        assert (animation.format, animation.n_frames) == ("GIF", 16)
        assert animation.info["loop"] == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio-ffmpeg's
def test_mp4(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = traverse(draw_discs, Z, AXES)
    path = tmp_path / "a.mp4"
    save_animation(frames, path, list("abcd"), value_labels(DEFAULT_VALUES))
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    pages = [np.frombuffer(page, dtype=np.uint8).astype(float) for page in reader]
    reader.close()
    assert facts["codec"] == "h264"
    assert facts["pix_fmt"].startswith("yuv420p")  # what players know
    assert facts["duration"] == pytest.approx(9.6, abs=0.3)  # four times forth and back
    assert len(pages) == 4 * 16
    assert np.abs(pages[0] - pages[16]).mean() < 2 < np.abs(pages[0] - pages[8]).mean()


def test_mp4_names_the_extra_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ValueError, match=r"pip install 'disentangle\[video\]'"):
        save_animation(torch.zeros(1, 1, 2, 1, 8, 8), tmp_path / "a.mp4", ["a"], ["x", "y"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("count", "columns", "size"), [(9, None, (28, 28)), (5, 4, (38, 18)), (1, None, (8, 8))]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_is_filled_row_by_row(count, columns, size, channels):
    images = torch.linspace(-1, 1, count)[:, None, None, None].expand(-1, channels, 8, 8)
    sheet = image_grid(images, columns)
    assert sheet.size == size
    assert sheet.getpixel((0, 0)) == (0, 0, 0)


def test_bad_image_grids_are_refused():
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got \(3, 8, 8\)"):
        image_grid(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        image_grid(torch.zeros(3, 1, 8, 8), 0)
    with pytest.raises(ValueError, match="at least one pixel"):
        image_grid(torch.zeros(0, 1, 8, 8))
