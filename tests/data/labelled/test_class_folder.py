import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from disentangle.data import ClassFolder, LabelledImages


def save(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (value, 0, 0)).save(path)


@pytest.fixture
def classes(tmp_path):
    """Two classes without folders of splits."""
    for number in range(40):
        save(tmp_path / ("cat" if number % 2 else "dog") / f"{number}.png", value=number)
    return tmp_path


@pytest.fixture
def splits(tmp_path):
    """ImageNet's layout: folders of splits, the one of the test without classes."""
    for number, name in enumerate(["n01440764", "n01443537", "n01484850"]):
        save(tmp_path / "train" / name / f"{name}_1.JPEG", value=50 * number)
    for name in ("n01443537", "n01484850"):
        save(tmp_path / "val" / name / "ILSVRC2012_val_1.JPEG")
    save(tmp_path / "test" / "ILSVRC2012_test_1.JPEG")
    return tmp_path


def test_labels_are_those_of_the_folders(classes):
    train = ClassFolder(path=classes, image_size=8)
    test = ClassFolder(path=classes, image_size=8, split="test")
    assert isinstance(train, LabelledImages)
    assert train.class_names == test.class_names == ("cat", "dog")
    assert len(train) + len(test) == 40
    assert set(train.paths).isdisjoint(test.paths)
    for data in (train, test):
        assert data.labels.dtype == np.int64
        assert len(data) == len(data.labels) == len(data.paths) > 0
        parents = [path.parent.name for path in data.paths]
        assert [data.class_names[label] for label in data.labels] == parents
        values = [int(path.stem) for path in data.paths]
        assert data.__getitems__(range(len(data)))[:, 0, 0, 0].tolist() == values


def test_splits_agree_with_those_of_an_image_folder(classes):
    from disentangle.data import ImageFolder

    options = {"path": classes, "image_size": 8, "split": "test", "test_fraction": 0.3}
    assert ClassFolder(**options).paths == ImageFolder(**options).paths


def test_folders_of_splits(splits):
    train = ClassFolder(path=splits, image_size=8)
    val = ClassFolder(path=str(splits), image_size=8, split="val")
    assert train.class_names == val.class_names == ("n01440764", "n01443537", "n01484850")
    assert (train.labels.tolist(), val.labels.tolist()) == ([0, 1, 2], [1, 2])
    assert all(path.is_relative_to(splits / "val") for path in val.paths)


def test_a_split_that_is_not_there(splits):
    expected = r"no classes in .*test; the splits with classes are train, val"
    with pytest.raises(FileNotFoundError, match=expected):
        ClassFolder(path=splits, image_size=8, split="test")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bicycle"):
        save(tmp_path / name / "0.png")
    data = ClassFolder(path=tmp_path, image_size=8, test_fraction=1e-9)
    assert data.class_names == ("bicycle", "train")


def test_corrupt_images_are_left_out_with_their_labels(classes):
    (classes / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot decode .*1\.png.*--data.on_corrupt skip"):
        ClassFolder(path=classes, image_size=8, test_fraction=1e-9)
    data = ClassFolder(path=classes, image_size=8, test_fraction=1e-9, on_corrupt="skip")
    assert [path.name for path in data.skipped] == ["1.png"]
    assert data.labels.tolist() == [0] * 19 + [1] * 20
    assert data[0][0, 0, 0] == int(data.paths[0].stem)


def test_without_check_they_are_an_error_when_read(classes):
    (classes / "cat" / "1.png").write_bytes(b"no image")
    data = ClassFolder(path=classes, image_size=8, test_fraction=1e-9, check=False)
    assert len(data) == 40
    with pytest.raises(ValueError, match=r"cannot decode .*1\.png.*--data.check true"):
        data[0]


def test_an_image_in_no_class(classes):
    save(classes / "stray.png")
    with pytest.raises(ValueError, match=r"stray.png is in no folder of a class, expected .*CLASS"):
        ClassFolder(path=classes, image_size=8, test_fraction=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "split must be one of train, val, test, got 'all'"),
        ({"split": "val"}, "split must be 'train' or 'test' where .* has no folders of splits"),
        ({"image_size": 0}, "image_size must be an integer of at least 1, got 0"),
        ({"crop": -1}, "crop must be an integer of at least 1, got -1"),
        ({"crop": 9}, "a square of 9 pixels does not fit into 12 × 8"),
    ],
)
def test_bad_arguments(classes, options, message):
    with pytest.raises(ValueError, match=message):
        ClassFolder(**{"path": classes, "image_size": 8, **options})


def test_no_folder_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent"):
        ClassFolder(path=tmp_path / "absent", image_size=8)
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"no images in "):
        ClassFolder(path=tmp_path, image_size=8)


def test_pickles(classes):
    data = ClassFolder(path=classes, image_size=8)
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[3], data[3])
    assert copy.labels.tolist() == data.labels.tolist()


@pytest.mark.parametrize("name", ["Train", "validation"])
@pytest.mark.parametrize("others", [[], ["train/cat"]])
def test_a_split_by_another_name_is_not_taken_for_a_class(tmp_path, name, others):
    for each in (f"{name}/cat", f"{name}/dog", *others):
        (tmp_path / each).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / each / "0.png")
    with pytest.raises(ValueError, match=f"rename .*{name} to one of train, val, test"):
        ClassFolder(path=tmp_path, image_size=8)


@pytest.mark.parametrize("stray", ["bus/1.png", "1.gif", "bus/small/1"])
def test_images_beside_a_split_are_refused(tmp_path, stray):
    for name in ("train/steam/1.png", "train/diesel/1.png"):
        save(tmp_path / name)
    (tmp_path / "devkit").mkdir()
    (tmp_path / "devkit" / "readme.txt").touch()
    assert len(ClassFolder(path=tmp_path, image_size=8)) == 2
    (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(tmp_path / stray, "PNG")
    with pytest.raises(ValueError, match=rf"{stray} lies beside the folder of a split, .*train: "):
        ClassFolder(path=tmp_path, image_size=8)


def test_a_link_to_a_split_is_not_beside_it(splits):
    (splits / "validation").symlink_to(splits / "val")
    assert len(ClassFolder(path=splits, image_size=8, split="val")) == 2


def test_folders_without_images_are_no_classes(classes):
    (classes / "ant").mkdir()
    (classes / "bee").mkdir()
    (classes / "bee" / "notes.txt").touch()
    (classes / "kitten").symlink_to(classes / "cat")
    for split in ("train", "test"):
        data = ClassFolder(path=classes, image_size=8, split=split)
        assert data.class_names == ("cat", "dog")
        assert data.left_out == (
            "1 unsupported file (1 .txt)",
            "folders without images of their own: ant, bee, kitten",
        )


def test_a_class_may_be_empty_in_a_split(splits):
    (splits / "val" / "n01440764").mkdir()
    (splits / "val" / "n02000000").mkdir()
    for split, count in (("train", 3), ("val", 2)):
        data = ClassFolder(path=splits, image_size=8, split=split)
        assert data.class_names == ("n01440764", "n01443537", "n01484850")
        assert len(data) == count
        assert data.left_out == ("folders without images of their own: n02000000",)


@pytest.mark.parametrize(
    "name", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "lost+found", ".cache"]
)
def test_folders_of_systems_are_no_classes(splits, name):
    for parent in (splits, splits / "train", splits / "train" / "n01440764"):
        save(parent / name / "1.png")
    data = ClassFolder(path=splits, image_size=8)
    assert data.class_names == ("n01440764", "n01443537", "n01484850")
    assert len(data) == 3
    assert data.left_out == (f"3 hidden or system folders (3 {name})",)


def test_a_class_called_train_may_hold_a_folder_of_a_system(tmp_path):
    for name in ("train/0.png", "train/@eaDir/0.png/small.jpg", "bicycle/0.png"):
        save(tmp_path / name)
    data = ClassFolder(path=tmp_path, image_size=8, test_fraction=1e-9)
    assert data.class_names == ("bicycle", "train")
    assert len(data) == 2
