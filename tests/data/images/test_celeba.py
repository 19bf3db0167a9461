import numpy as np
import pytest
import torch
from PIL import Image

from disentangle.data import CelebA

SPLITS = [0, 0, 0, 1, 2, 2]
ATTRIBUTES = ["5_o_Clock_Shadow", "Bald", "Young"]
VALUES = np.where(np.random.default_rng(0).integers(0, 2, (6, 3)), 1, -1)


def name(number):
    return f"{number:06d}.jpg"


def picture(number):
    generator = np.random.default_rng(number)
    coarse = generator.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((178, 218))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "img_align_celeba").mkdir()
    for number in range(1, 7):
        picture(number).save(tmp_path / "img_align_celeba" / name(number), quality=95)
    lines = [f"{name(number)} {split}" for number, split in enumerate(SPLITS, 1)]
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{name(k)} {' '.join(f'{v:2d}' for v in row)}" for k, row in enumerate(VALUES, 1)]
    content = ["6", " ".join(ATTRIBUTES) + " ", *rows]  # with the spaces of the official file
    (tmp_path / "list_attr_celeba.txt").write_text("\r\n".join(content) + "\r\n")
    return tmp_path


@pytest.mark.parametrize(
    ("split", "numbers"),
    [("all", [1, 2, 3, 4, 5, 6]), ("train", [1, 2, 3]), ("valid", [4]), ("test", [5, 6])],
)
def test_splits_are_the_official_ones(folder, split, numbers):
    data = CelebA(path=str(folder), image_size=16, split=split)
    assert [path.name for path in data.paths] == [name(number) for number in numbers]
    assert data.attribute_names == tuple(ATTRIBUTES)
    assert data.attributes.dtype == np.int64
    assert np.array_equal(data.attributes, VALUES[np.array(numbers) - 1] == 1)
    assert len(data) == len(numbers)


def test_the_crop_is_that_of_orojar(folder):
    """Which takes `image[24:-24, 4:-4]` of the 218 rows and 178 columns."""
    image = CelebA(path=folder, image_size=170)[1].permute(1, 2, 0)
    stored = np.asarray(Image.open(folder / "img_align_celeba" / name(2)))
    assert np.array_equal(image, stored[24:-24, 4:-4])


def test_other_crops(folder):
    stored = np.asarray(Image.open(folder / "img_align_celeba" / name(1)))
    image = CelebA(path=folder, image_size=128, crop=128)[0].permute(1, 2, 0)
    assert np.array_equal(image, stored[45:173, 25:153])
    image = CelebA(path=folder, image_size=178, crop=None)[0].permute(1, 2, 0)
    assert np.array_equal(image, stored[20:198])


def test_without_the_list_of_attributes(folder):
    (folder / "list_attr_celeba.txt").unlink()
    data = CelebA(path=folder, image_size=16)
    assert (data.attribute_names, data.attributes.shape) == ((), (6, 0))


def test_corrupt_images_are_left_out_with_their_attributes(folder):
    (folder / "img_align_celeba" / name(5)).write_bytes(b"no image")
    with pytest.raises(ValueError, match=rf"cannot decode .*{name(5)}.*--data.on_corrupt skip"):
        CelebA(path=folder, image_size=16)
    data = CelebA(path=folder, image_size=16, split="test", on_corrupt="skip")
    assert [path.name for path in data.paths] == [name(6)]
    assert [path.name for path in data.skipped] == [name(5)]
    assert np.array_equal(data.attributes, VALUES[[5]] == 1)
    unchecked = CelebA(path=folder, image_size=16, split="test", check=False)
    assert torch.equal(unchecked[1], data[0])
    with pytest.raises(ValueError, match=rf"cannot decode .*{name(5)}.*--data.check true"):
        unchecked[0]


@pytest.mark.parametrize("missing", ["img_align_celeba", "list_eval_partition.txt"])
def test_what_is_missing_is_named_with_place_and_project(folder, missing):
    (folder / missing).rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError) as error:
        CelebA(path=folder, image_size=16)
    assert str(folder / missing) in str(error.value)
    assert "Large-scale CelebFaces Attributes" in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("list_eval_partition.txt", "", "list of splits: .* 0, 1 or 2, got no lines"),
        ("list_eval_partition.txt", "000001.jpg 3", "0, 1 or 2, got the line '000001.jpg 3'"),
        ("list_eval_partition.txt", "000001.jpg", "0, 1 or 2, got the line '000001.jpg'"),
        ("list_eval_partition.txt", "../a.jpg 0", "files of its own folder, got '../a.jpg'"),
        ("list_attr_celeba.txt", "1\nBald\n000002.jpg 1", "must list the 6 images of list_eval"),
        ("list_attr_celeba.txt", "", "is not CelebA's list of attributes: not enough values"),
    ],
)
def test_damaged_lists(folder, file, content, message):
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        CelebA(path=folder, image_size=16)


@pytest.mark.parametrize(("old", "new"), [("1", "2"), ("Bald", "Bald Beard"), (" Bald", "")])
def test_damaged_attributes(folder, old, new):
    file = folder / "list_attr_celeba.txt"
    count, *rest = file.read_text().splitlines()
    rest = [rest[0].replace(old, new), *(row[:-1] + row[-1].replace(old, new) for row in rest[1:])]
    file.write_text("\n".join([count, *rest]))
    with pytest.raises(ValueError, match=r"each image must have \d values of -1 or 1"):
        CelebA(path=folder, image_size=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "val"}, "split must be one of all, train, valid, test, got 'val'"),
        ({"crop": 179}, "a square of 179 pixels does not fit into 178 × 218"),
        ({"image_size": 0}, "image_size must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(folder, options, message):
    with pytest.raises(ValueError, match=message):
        CelebA(**{"path": folder, "image_size": 16, **options})
