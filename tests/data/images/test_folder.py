import contextlib
import os
import pickle
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from disentangle.data import ImageFolder, describe_left_out
from disentangle.data.images import finding


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def load(path, size, channels=3):
    """The only image in a folder."""
    return ImageFolder(path=path, image_size=size, image_channels=channels)[0]


@pytest.fixture
def truncated(tmp_path):
    """A folder with a whole image and one cut off in the middle."""
    save(tmp_path / "b.png", noise(20, 20))
    path = save(tmp_path / "a.jpg", noise(90, 90))
    path.write_bytes(path.read_bytes()[:-2000])
    return tmp_path


def test_images_of_the_right_size_keep_their_pixels(tmp_path):
    pictures = [noise(16, 16, seed=seed) for seed in range(3)]
    for number, picture in enumerate(pictures):
        save(tmp_path / f"{number}.png", picture)
    data = ImageFolder(path=tmp_path, image_size=16)
    assert len(data) == 3
    assert (data.image_size, data.image_channels, data.skipped) == (16, 3, ())
    images = data.__getitems__([2, 0])
    assert images.dtype == torch.uint8
    assert np.array_equal(images.permute(0, 2, 3, 1), np.stack([pictures[2], pictures[0]]))


def test_order_is_that_of_the_names(tmp_path):
    names = ["b/x.png", "a/y.JPG", "a.png", "c.webp", "a/b/z.bmp", "é.tiff"]
    for name in names:
        save(tmp_path / name, noise(8, 8))
    for other in ("notes.txt", ".hidden.png", "._c.webp", ".cache/x.png"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_bytes(b"no image")
    data = ImageFolder(path=str(tmp_path), image_size=8)
    found = [path.relative_to(tmp_path).as_posix() for path in data.paths]
    assert found == ["a/b/z.bmp", "a/y.JPG", "a.png", "b/x.png", "c.webp", "é.tiff"]


@pytest.mark.parametrize(("height", "width"), [(40, 100), (100, 40)])
def test_the_central_square_is_cropped(tmp_path, height, width):
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    top, left = (height - 40) // 2, (width - 40) // 2
    picture[top : top + 40, left : left + 40, 1] = 200
    save(tmp_path / "a.png", picture)
    image = load(tmp_path, 20)
    assert (image[1, 3:-3, 3:-3] == 200).all()
    assert (image[1] > 180).all()
    assert not image[[0, 2]].any()


def test_shrinking_averages(tmp_path):
    checkerboard = np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255
    save(tmp_path / "a.png", checkerboard)
    image = load(tmp_path, 8)
    assert abs(image.float() - 127.5).max() < 3


def test_a_large_jpeg_is_close_to_its_full_decoding(tmp_path):
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    picture = np.stack([np.tile(ramp, (512, 1)), np.tile(ramp, (512, 1)).T], axis=2)
    picture = np.pad(picture, ((0, 0), (0, 0), (0, 1)))
    save(tmp_path / "a.jpg", picture, quality=95)
    expected = Image.fromarray(picture).resize((32, 32), Image.Resampling.LANCZOS)
    difference = load(tmp_path, 32).permute(1, 2, 0).numpy() - np.asarray(expected, dtype=float)
    assert abs(difference).mean() < 2


def test_exif_orientation_is_honoured(tmp_path):
    picture = noise(16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise by 90°
    save(tmp_path / "a.png", picture, exif=exif)
    assert np.array_equal(load(tmp_path, 16).permute(1, 2, 0), np.rot90(picture, -1))


def test_grey_and_colour_are_converted(tmp_path):
    grey = noise(16, 16, channels=1)
    save(tmp_path / "grey" / "a.png", grey)
    save(tmp_path / "colour" / "a.png", np.full((16, 16, 3), (255, 0, 0), dtype=np.uint8))
    assert np.array_equal(load(tmp_path / "grey", 16), np.stack([grey] * 3))
    assert np.array_equal(load(tmp_path / "grey", 16, channels=1), grey[None])
    assert load(tmp_path / "colour", 16, channels=1).unique().tolist() == [76]


def test_transparency_is_laid_on_white(tmp_path):
    picture = np.zeros((16, 16, 4), dtype=np.uint8)
    picture[:8, :, 3] = 255
    save(tmp_path / "rgba" / "a.png", picture)
    palette = Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).convert("P")
    (tmp_path / "palette").mkdir()
    palette.save(tmp_path / "palette" / "a.png", transparency=bytes(256))
    assert not load(tmp_path / "rgba", 16)[:, :8].any()
    assert (load(tmp_path / "rgba", 16)[:, 8:] == 255).all()
    assert (load(tmp_path / "palette", 16) == 255).all()


def test_sixteen_bits_are_scaled(tmp_path):
    picture = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    save(tmp_path / "a.png", picture)
    assert np.array_equal(load(tmp_path, 16, channels=1)[0], picture // 257)


def test_a_truncated_image_is_an_error_that_names_it(truncated):
    with pytest.raises(ValueError, match="truncated") as error:
        ImageFolder(path=truncated, image_size=16)
    message = str(error.value)
    assert str(truncated / "a.jpg") in message
    assert "--data.on_corrupt skip" in message
    assert "\n" not in message


def test_corrupt_images_are_skipped_when_asked(truncated):
    (truncated / "c.png").write_bytes(b"no image")
    (truncated / "d.png").touch()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in truncated.iterdir())
    data = ImageFolder(path=truncated, image_size=16, on_corrupt="skip")
    assert [path.name for path in data.paths] == ["b.png"]
    assert [path.name for path in data.skipped] == ["a.jpg", "c.png", "d.png"]
    assert len(data) == 1
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in truncated.iterdir())


def test_all_corrupt(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"no image in .* can be decoded, all 1 are corrupt"):
        ImageFolder(path=tmp_path, image_size=16, on_corrupt="skip")


@pytest.mark.parametrize("limit", [700, 1599])  # PIL itself would warn of the latter
def test_a_decompression_bomb_counts_as_corrupt(tmp_path, monkeypatch, limit):
    save(tmp_path / "a.png", noise(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"a.png: it must have .* pixels at most, got 1,600"):
        ImageFolder(path=tmp_path, image_size=16)


def test_floating_point_pixels_are_refused(tmp_path):
    save(tmp_path / "a.tiff", np.zeros((16, 16), dtype=np.float32))
    with pytest.raises(ValueError, match=r"a.tiff: pixels must be integers .* floating-point"):
        ImageFolder(path=tmp_path, image_size=16)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
        server.bind(path.name)  # a whole path may be too long


def make_link_to_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_link_to_device])
def test_what_is_no_file_is_refused_and_does_not_hang(tmp_path, make):
    save(tmp_path / "b.png", noise(8, 8))
    make(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a.png: not a regular file"):
        ImageFolder(path=tmp_path, image_size=16)
    data = ImageFolder(path=tmp_path, image_size=16, check=False)
    assert data[1].shape == (3, 16, 16)
    with pytest.raises(ValueError, match=r"a.png: not a regular file \(--data.check true"):
        data[0]
    skipping = ImageFolder(path=tmp_path, image_size=16, on_corrupt="skip")
    assert skipping.skipped == (tmp_path / "a.png",)
    (tmp_path / "a.png").rename(tmp_path / "a")
    assert ImageFolder(path=tmp_path, image_size=16).left_out == (
        "1 unsupported file (1 without extension)",
    )


def test_files_with_other_names_are_images_if_their_header_says_so(tmp_path):
    for name, kind in (
        ("a.gif", "GIF"),
        ("b.jfif", "JPEG"),
        ("c", "PNG"),
        ("d.JPE", "JPEG"),
        ("e.bin", "WEBP"),
        ("f.0001", "TIFF"),
    ):
        Image.fromarray(noise(8, 8)).save(tmp_path / name, kind)
    for name, content in (
        ("README", "BMP files are a family of formats"),
        ("LICENSE", "Python's licence"),
        ("notes", "P5 is a kind of PGM"),
        ("list.txt", "a.gif 1"),
        ("depth.pfm", "Pf 1 1 -1.0\n...."),
        ("empty", ""),
    ):
        (tmp_path / name).write_text(content)
    (tmp_path / "dangling").symlink_to(tmp_path / "absent")
    data = ImageFolder(path=tmp_path, image_size=8)
    assert [path.name for path in data.paths] == [
        "a.gif",
        "b.jfif",
        "c",
        "d.JPE",
        "e.bin",
        "f.0001",
    ]
    assert data.left_out == ("7 unsupported files (5 without extension, 1 .pfm, 1 .txt)",)
    (tmp_path / "b.jfif").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b\.jfif: it must be one of BMP"):
        ImageFolder(path=tmp_path, image_size=8)


def test_only_files_without_a_telling_name_are_opened_to_find_images(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(finding, "is_decodable", lambda path: opened.append(path.name))
    for name in ("a.png", "b.txt", "c.json", "d.mp4", "e.zip", "f.abc", "g"):
        (tmp_path / name).touch()
    assert len(ImageFolder(path=tmp_path, image_size=8, check=False)) == 1
    assert sorted(opened) == ["f.abc", "g"]


def test_folders_of_systems_are_left_out(tmp_path):
    for name in ("a.png", "b/c.png", "b/@eaDir/c.png/thumbnail.jpg", ".cache/x.png", ".d.png"):
        save(tmp_path / name, noise(8, 8))
    systems = ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "lost+found")
    for name in systems:
        save(tmp_path / name / "y.png", noise(8, 8))
    data = ImageFolder(path=tmp_path, image_size=8)
    assert [path.name for path in data.paths] == ["a.png", "c.png"]
    folders, hidden = data.left_out
    assert folders.startswith("7 hidden or system folders (2 @eaDir, ")
    assert hidden == "1 hidden file"


@pytest.mark.parametrize(("kind", "name"), [("GIF", "a.gif"), ("WEBP", "a.webp"), ("PNG", "a.png")])
def test_the_first_image_of_an_animation_is_taken(tmp_path, kind, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    options = {"save_all": True, "append_images": frames[1:], "duration": 100}
    frames[0].save(tmp_path / name, kind, **options, lossless=True)  # where it has a meaning
    with Image.open(tmp_path / name) as animation:
        assert animation.n_frames == 3
    assert load(tmp_path, 8)[:, 4, 4].tolist() == [255, 0, 0]


def test_what_is_left_out_is_one_line(truncated):
    assert describe_left_out(ImageFolder(path=truncated, image_size=16, check=False)) == ""
    (truncated / "notes\n.txt").touch()
    data = ImageFolder(path=truncated, image_size=16, on_corrupt="skip")
    line = "left out: 1 of 2 images, which cannot be read, such as {}; 1 unsupported file (1 .txt)"
    assert describe_left_out(data) == line.format(truncated / "a.jpg")
    (truncated / "x.a\x1bb").touch()
    assert "1 .a\\x1bb" in describe_left_out(
        ImageFolder(path=truncated, image_size=16, check=False)
    )


def test_links(tmp_path):
    outside = save(tmp_path / "outside" / "x.png", noise(8, 8)).parent
    inside = save(tmp_path / "images" / "sub" / "y.png", noise(8, 8)).parent
    (inside / "loop").symlink_to(tmp_path / "images")
    (inside / "other").symlink_to(outside)
    (inside / "same").symlink_to(outside)
    data = ImageFolder(path=tmp_path / "images", image_size=8)
    found = [path.relative_to(tmp_path / "images").as_posix() for path in data.paths]
    assert found == ["sub/other/x.png", "sub/y.png"]
    (inside / "broken.png").symlink_to(tmp_path / "absent.png")
    with pytest.raises(ValueError, match=r"broken.png"):
        ImageFolder(path=tmp_path / "images", image_size=8)


def test_a_file_that_breaks_later_is_named(tmp_path):
    path = save(tmp_path / "a.png", noise(8, 8))
    data = ImageFolder(path=tmp_path, image_size=8)
    path.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot decode .*a.png"):
        data[0]


def test_no_folder_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent .*JPEG"):
        ImageFolder(path=tmp_path / "absent", image_size=8)
    with pytest.raises(ValueError, match=r"no images in .* \(BMP, .*WEBP\): it has no files"):
        ImageFolder(path=tmp_path, image_size=8)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        ValueError, match=r"no images in .*: 1 unsupported file \(1 .txt\) left out"
    ):
        ImageFolder(path=tmp_path, image_size=8)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file must be a folder of images .*, got a file"):
        ImageFolder(path=tmp_path / "file", image_size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be an integer of at least 1, got 0"),
        ({"image_size": 8.5}, "image_size must be an integer of at least 1, got 8.5"),
        ({"image_channels": 4}, "image_channels must be 1 or 3, got 4"),
        ({"on_corrupt": "ignore"}, "on_corrupt must be 'error' or 'skip', got 'ignore'"),
        ({"crop": 0}, "crop must be an integer of at least 1, got 0"),
        ({"split": "val"}, "split must be one of all, train, test, got 'val'"),
        ({"test_fraction": 1.0}, "test_fraction must be between 0 and 1, got 1.0"),
        ({"test_fraction": float("nan")}, "test_fraction must be between 0 and 1, got nan"),
    ],
)
def test_bad_arguments(tmp_path, options, message):
    save(tmp_path / "a.png", noise(8, 8))
    with pytest.raises(ValueError, match=message):
        ImageFolder(**{"path": tmp_path, "image_size": 8, **options})


@pytest.mark.parametrize("index", [-1, 1, 0.0])
def test_bad_indices(tmp_path, index):
    save(tmp_path / "a.png", noise(8, 8))
    with pytest.raises(ValueError, match="indices must be"):
        ImageFolder(path=tmp_path, image_size=8)[index]


def test_pickles(tmp_path):
    save(tmp_path / "a.png", noise(8, 8))
    data = ImageFolder(path=tmp_path, image_size=8)
    assert torch.equal(pickle.loads(pickle.dumps(data))[0], data[0])


def test_ffhq_is_such_a_folder(tmp_path):
    for name in ("00000/00000.png", "00000/00999.png", "01000/01000.png"):
        save(tmp_path / "thumbnails128x128" / name, noise(16, 16, seed=int(name[-9:-4])))
    (tmp_path / "thumbnails128x128" / "LICENSE.txt").write_text("a licence")
    data = ImageFolder(path=tmp_path / "thumbnails128x128", image_size=16)
    assert [path.name for path in data.paths] == ["00000.png", "00999.png", "01000.png"]
    assert np.array_equal(data[2].permute(1, 2, 0), noise(16, 16, seed=1000))


def test_crop_is_the_central_square_of_the_file(tmp_path):
    picture = noise(30, 40)
    save(tmp_path / "a.png", picture)
    image = ImageFolder(path=tmp_path, image_size=16, crop=16)[0]
    assert np.array_equal(image.permute(1, 2, 0), picture[7:23, 12:28])


def test_crop_of_a_large_jpeg_is_in_its_own_pixels(tmp_path):
    picture = np.zeros((512, 600, 3), dtype=np.uint8)
    picture[128:384, 172:428] = 200
    save(tmp_path / "a.jpg", picture, quality=95)
    image = ImageFolder(path=tmp_path, image_size=16, crop=256)[0]
    assert (abs(image.float() - 200) < 4).all()


def test_crop_larger_than_an_image(tmp_path):
    save(tmp_path / "a.png", noise(30, 40))
    with pytest.raises(ValueError, match=r"a.png: a square of 31 pixels does not fit into 40 × 30"):
        ImageFolder(path=tmp_path, image_size=16, crop=31)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of 300 images."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(300):
        save(folder / f"{number % 3}" / f"{number}.png", noise(2, 2, 1))
    return folder


def names(folder, **options):
    data = ImageFolder(path=folder, image_size=2, check=False, **options)
    return [path.relative_to(folder).as_posix() for path in data.paths]


def test_splits_share_the_images_out(many):
    train, test = names(many, split="train"), names(many, split="test")
    assert sorted(train + test) == sorted(names(many))
    assert 15 <= len(test) <= 50
    assert 100 <= len(names(many, split="test", test_fraction=0.5)) <= 200
    assert set(test) < set(names(many, split="test", test_fraction=0.5))


def test_split_of_an_image_depends_on_its_name_alone(many, tmp_path):
    test = set(names(many, split="test"))
    for number in range(0, 300, 2):
        save(tmp_path / f"{number % 3}" / f"{number}.png", noise(2, 2, 1))
    assert set(names(tmp_path, split="test")) == test & set(names(tmp_path))


def test_an_empty_split(tmp_path):
    save(tmp_path / "a.png", noise(8, 8))
    empty = "the split 'test' of .* is empty: it has 1 images, of which about 1e-09"
    with pytest.raises(ValueError, match=empty):
        ImageFolder(path=tmp_path, image_size=8, split="test", test_fraction=1e-9)


def test_without_check_a_corrupt_image_is_an_error_when_it_is_read(truncated):
    data = ImageFolder(path=truncated, image_size=16, check=False)
    assert len(data) == 2
    assert data[1].shape == (3, 16, 16)
    with pytest.raises(ValueError, match=r"cannot decode .*a\.jpg") as error:
        data[0]
    assert "--data.check true --data.on_corrupt skip" in str(error.value)


def test_without_check_nothing_can_be_skipped(truncated):
    with pytest.raises(ValueError, match="check must be true for on_corrupt 'skip'"):
        ImageFolder(path=truncated, image_size=16, check=False, on_corrupt="skip")


# Python 3.12 and later warn of any fork of a process with threads, such as those of PyTorch.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_decode(truncated):
    data = ImageFolder(path=truncated, image_size=16, check=False)
    loader = torch.utils.data.DataLoader(
        data, batch_sampler=[[1], [0]], collate_fn=lambda batch: batch, num_workers=1
    )
    batches = iter(loader)
    assert torch.equal(next(batches), data.__getitems__([1]))
    with pytest.raises(ValueError, match=r"cannot decode .*a\.jpg"):
        next(batches)
