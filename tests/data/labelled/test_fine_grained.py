"""CUB-200-2011, FGVC-Aircraft and Stanford Cars, which are read alike."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from disentangle.data import CUB200, FGVCAircraft, LabelledImages, StanfordCars

CLASSES = {CUB200: ["001.Black_Bird", "002.Tern"], FGVCAircraft: ["707-320", "F/A-18"]}
CLASSES[StanfordCars] = ["AM General Hummer SUV 2000", "Ford F-150"]


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((60, 64, 3), dtype=np.uint8)
    picture[:40] = value
    picture[40:, ::2] = 255  # a banner
    Image.fromarray(picture).save(path, quality=95)


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def birds(root):
    folder = root / "CUB_200_2011"
    files = [f"{CLASSES[CUB200][k % 2]}/bird_{k}.jpg" for k in range(5)]
    for k, file in enumerate(files):
        save(folder / "images" / file, 40 * k)
    write(folder / "images.txt", [f"{k + 1} {file}" for k, file in enumerate(files)])
    write(folder / "image_class_labels.txt", [f"{k + 1} {k % 2 + 1}" for k in range(5)])
    write(folder / "train_test_split.txt", [f"{k + 1} {int(k < 3)}" for k in range(5)])
    write(folder / "classes.txt", [f"{k + 1} {name}" for k, name in enumerate(CLASSES[CUB200])])


def aircraft(root):
    folder = root / "fgvc-aircraft-2013b" / "data"
    for k in range(5):
        save(folder / "images" / f"{k:07d}.jpg", 40 * k)
    write(folder / "variants.txt", CLASSES[FGVCAircraft])
    rows = [f"{k:07d} {CLASSES[FGVCAircraft][k % 2]}" for k in range(5)]
    splits = {"train": rows[:2], "val": rows[2:3], "trainval": rows[:3], "test": rows[3:]}
    for split, lines in splits.items():
        write(folder / f"images_variant_{split}.txt", lines)


def cars(root):
    (root / "devkit").mkdir()
    names = np.array(CLASSES[StanfordCars], dtype=object)[None]
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    files = {"train_annos": [0, 1, 2], "test_annos_withlabels": [3, 4]}
    for name, numbers in files.items():
        kinds = [(field, object) for field in ("bbox_x1", "class", "fname")]
        rows = [(9, np.uint8(k % 2 + 1), f"{k + 1:05d}.jpg") for k in numbers]
        savemat(root / "devkit" / f"cars_{name}.mat", {"annotations": np.array([rows], kinds)[0]})
        for k in numbers:
            save(root / f"cars_{name.split('_')[0]}" / f"{k + 1:05d}.jpg", 40 * k)


WRITERS = {CUB200: birds, FGVCAircraft: aircraft, StanfordCars: cars}
TRAINING = {CUB200: "train", FGVCAircraft: "trainval", StanfordCars: "train"}


@pytest.fixture(params=WRITERS, ids=lambda cls: cls.__name__)
def cls(request, tmp_path):
    WRITERS[request.param](tmp_path)
    return request.param


def test_official_splits_and_labels(cls, tmp_path):
    train = cls(path=tmp_path, image_size=16, split=TRAINING[cls])
    test = cls(path=str(tmp_path), image_size=16, split="test")
    assert isinstance(train, LabelledImages)
    assert train.class_names == test.class_names == tuple(CLASSES[cls])
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 0], [1, 0])
    assert train.labels.dtype == np.int64
    for data, values in ((train, [0, 40, 80]), (test, [120, 160])):
        found = data.__getitems__(range(len(data)))[:, :, :4].float().mean((1, 2, 3))
        assert (abs(found - torch.tensor(values)) < 2).all()


def test_the_default_split_is_that_for_training(cls, tmp_path):
    default, train = (
        cls(path=tmp_path, image_size=16, **o) for o in ({}, {"split": TRAINING[cls]})
    )
    assert default.paths == train.paths


def test_the_banner_of_aircraft_is_cut_off(tmp_path):
    aircraft(tmp_path)
    images = FGVCAircraft(path=tmp_path, image_size=16, split="train").__getitems__([0, 1])
    assert images[0].max() < 20
    assert (abs(images[1].float() - 40) < 20).all()
    whole = np.asarray(Image.open(tmp_path / "fgvc-aircraft-2013b/data/images/0000001.jpg"))
    image = FGVCAircraft(path=tmp_path, image_size=40, split="train")[1].permute(1, 2, 0)
    assert np.array_equal(image, whole[:40, 12:52])


def test_splits_of_aircraft(tmp_path):
    aircraft(tmp_path)
    folder = tmp_path / "fgvc-aircraft-2013b"
    for split, count in {"train": 2, "val": 1, "trainval": 3, "test": 2}.items():
        assert len(FGVCAircraft(path=folder, image_size=8, split=split)) == count


def test_corrupt_images(cls, tmp_path):
    broken = cls(path=tmp_path, image_size=8, split="test").paths[0]
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=f"cannot decode .*{broken.name}"):
        cls(path=tmp_path, image_size=8, split="test")
    with pytest.raises(ValueError, match=f"cannot decode .*{broken.name}"):
        cls(path=tmp_path, image_size=8, split="test", check=False)[0]
    data = cls(path=tmp_path, image_size=8, split="test", on_corrupt="skip")
    assert (data.skipped, data.labels.tolist()) == ((broken,), [0])


LISTS = {
    CUB200: ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"],
    FGVCAircraft: ["variants.txt", "images_variant_test.txt"],
    StanfordCars: ["cars_meta.mat", "cars_test_annos_withlabels.mat"],
}


def test_a_missing_list_is_named_with_place_and_project(cls, tmp_path):
    for name in LISTS[cls]:
        (file,) = tmp_path.rglob(name)
        file.rename(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError) as error:
            cls(path=tmp_path, image_size=8, split="test")
        assert str(error.value).startswith(f"no {name} at {file}; get it from ")
        (tmp_path / "elsewhere").rename(file)


def test_damaged_lists(cls, tmp_path):
    for name in LISTS[cls]:
        (file,) = tmp_path.rglob(name)
        content = file.read_bytes()
        file.write_bytes(b"7 \xff\xff\xff")
        with pytest.raises(
            ValueError, match=f"{name} is not a (text file|list of Stanford Cars): "
        ):
            cls(path=tmp_path, image_size=8, split="test")
        file.write_bytes(content)


def test_a_missing_folder_of_images(cls, tmp_path):
    images = cls(path=tmp_path, image_size=8, split="test").paths[0].parent
    images = images.parent if cls is CUB200 else images
    images.rename(tmp_path / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match=f"no folder {images.name} at {images}; get it from"
    ):
        cls(path=tmp_path, image_size=8, split="test")


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("images.txt", ["1 a b"], "its lines must be a number and a word, got '1 a b'"),
        ("images.txt", [f"{k} ../a.jpg" for k in range(1, 6)], "own folder, got '../a.jpg'"),
        ("images.txt", ["1 a.jpg"], "the lists must be of the same images, got 1, 5, 5"),
        ("image_class_labels.txt", [f"{k} 3" for k in range(1, 6)], "is not CUB_200_2011: '3'"),
    ],
)
def test_damaged_lists_of_birds(tmp_path, name, lines, message):
    birds(tmp_path)
    write(tmp_path / "CUB_200_2011" / name, lines)
    with pytest.raises(ValueError, match=message):
        CUB200(path=tmp_path, image_size=8)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0000001 Concorde"], "an image and a variant, got '0000001 Concorde'"),
        (["0000001"], "an image and a variant, got '0000001'"),
        ([], "an image and a variant, got none"),
        (["/etc/a 707-320"], "own folder, got '/etc/a'"),
    ],
)
def test_damaged_lists_of_aircraft(tmp_path, lines, message):
    aircraft(tmp_path)
    write(tmp_path / "fgvc-aircraft-2013b" / "data" / "images_variant_test.txt", lines)
    with pytest.raises(ValueError, match=message):
        FGVCAircraft(path=tmp_path, image_size=8, split="test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": [1]}, "is not a list of Stanford Cars: it must contain annotations"),
        ({"annotations": [1]}, "is not a list of Stanford Cars: "),
    ],
)
def test_damaged_lists_of_cars(tmp_path, content, message):
    cars(tmp_path)
    savemat(tmp_path / "devkit" / "cars_train_annos.mat", content)
    with pytest.raises(ValueError, match=message):
        StanfordCars(path=tmp_path, image_size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "split must be one of train, .*test, got 'all'"),
        ({"image_size": 0}, "image_size must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(cls, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        cls(**{"path": tmp_path, "image_size": 8, **options})
