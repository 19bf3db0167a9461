import hashlib
import os
import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from disentangle.data import CIFAR10, CIFAR100, LabelledImages
from disentangle.data.labelled.plain_pickle import load_plain


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote text, like the official files."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_text(self, text):
        self.write(pickle.BINSTRING + struct.pack("<i", len(text)) + text)
        self.memoize(text)

    dispatch[bytes] = save_text


def write(path, content):
    """A pickle as Python 2 and NumPy 1 wrote it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        Python2Pickler(file, protocol=2).dump(content)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", b"cnumpy.core."))


def batch(seed, classes, label_key):
    generator = np.random.default_rng(seed)
    return {
        b"data": generator.integers(0, 256, (6, 3072), dtype=np.uint8),
        label_key: generator.integers(0, classes, 6).tolist(),
    }


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for seed, name in enumerate(names):
        write(folder / name, batch(seed, 10, b"labels"))
    write(folder / "batches.meta", {b"label_names": [b"kind %d" % k for k in range(10)]})
    return tmp_path


@pytest.fixture
def cifar100(tmp_path):
    folder = tmp_path / "cifar-100-python"
    for seed, name in enumerate(["train", "test"]):
        write(folder / name, batch(seed, 100, b"fine_labels"))
    write(folder / "meta", {b"fine_label_names": [b"kind %d" % k for k in range(100)]})
    return tmp_path


def test_cifar10(cifar10):
    data = CIFAR10(path=cifar10, verify=False)
    assert [path.name for path in data.paths] == [f"data_batch_{i}" for i in range(1, 6)]
    assert isinstance(data, LabelledImages)
    assert (len(data), data.image_size, data.image_channels) == (30, 32, 3)
    assert data.class_names == tuple(f"kind {k}" for k in range(10))
    expected = [batch(seed, 10, "labels") for seed in range(5)]
    assert data.labels.dtype == np.int64
    assert np.array_equal(data.labels, np.concatenate([each["labels"] for each in expected]))
    pixels = np.concatenate([each[b"data"] for each in expected]).reshape(-1, 3, 32, 32)
    assert np.array_equal(data.__getitems__(range(30)), pixels)
    test = CIFAR10(path=cifar10 / "cifar-10-batches-py", split="test", verify=False)
    assert np.array_equal(test[5], batch(5, 10, "labels")[b"data"][5].reshape(3, 32, 32))


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar100(cifar100, split):
    data = CIFAR100(path=cifar100, split=split, verify=False)
    expected = batch(split == "test", 100, "labels")
    assert data.labels.tolist() == expected["labels"]
    assert np.array_equal(data[3], expected[b"data"][3].reshape(3, 32, 32))
    assert len(data.class_names) == 100


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_torchvision_reads_the_same(request, name, split, monkeypatch):
    folder = request.getfixturevalue(name.lower())
    reference = getattr(torchvision.datasets, name)
    for listed in ("train_list", "test_list"):
        names = [name for name, _ in getattr(reference, listed)]
        files = [folder / reference.base_folder / name for name in names]
        digests = [hashlib.md5(file.read_bytes()).hexdigest() for file in files]
        monkeypatch.setattr(reference, listed, list(zip(names, digests, strict=True)))
    meta = folder / reference.base_folder / reference.meta["filename"]
    monkeypatch.setitem(reference.meta, "md5", hashlib.md5(meta.read_bytes()).hexdigest())
    expected = reference(folder, train=split == "train")
    data = {"CIFAR10": CIFAR10, "CIFAR100": CIFAR100}[name](path=folder, split=split)
    assert list(data.class_names) == expected.classes
    assert data.labels.tolist() == expected.targets
    for image, (pixels, _) in zip(data, expected, strict=True):
        assert np.array_equal(image.permute(1, 2, 0), pixels)


def test_another_size(cifar10):
    data = CIFAR10(path=cifar10, image_size=16, verify=False)
    stored = CIFAR10(path=cifar10, verify=False)[4].permute(1, 2, 0).numpy()
    expected = Image.fromarray(stored).resize((16, 16), Image.Resampling.LANCZOS)
    assert np.array_equal(data[4].permute(1, 2, 0), expected)


def test_checksum(cifar10):
    with pytest.raises(
        ValueError, match=r"data_batch_1 is not a CIFAR file: its md5 must be c99caf"
    ):
        CIFAR10(path=cifar10)


@pytest.mark.parametrize(("data_set", "name"), [(CIFAR10, "data_batch_1"), (CIFAR100, "train")])
def test_a_missing_file_is_named_with_place_and_project(data_set, name, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        data_set(path=tmp_path)
    assert str(error.value).startswith(f"no {name} at {tmp_path / name}; get it from The CIFAR ")
    assert "md5:" in str(error.value)


def test_a_missing_batch_among_others(cifar10):
    (cifar10 / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match="no data_batch_4 at"):
        CIFAR10(path=cifar10, verify=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"labels": [1]}, "data_batch_2 is not a CIFAR file: it must hold a dict with 'data'"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "data_batch_2 is not a CIFAR file: .* 'labels'"),
        (
            {b"data": np.zeros((1, 3072)), b"labels": [1]},
            r"data must be uint8 \(1, .*3072.*\), got float64",
        ),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, r"got uint8 \(2, 3072\)"),
        ([1], "data_batch_2 is not a CIFAR file"),
        (
            {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]},
            "labels must be from 0 to 9, got 10",
        ),
    ],
)
def test_damaged_content(cifar10, content, message):
    write(cifar10 / "cifar-10-batches-py" / "data_batch_2", content)
    with pytest.raises(ValueError, match=message):
        CIFAR10(path=cifar10, verify=False)


def test_a_truncated_file(cifar10):
    file = cifar10 / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="test_batch is not a CIFAR file: "):
        CIFAR10(path=cifar10, split="test", verify=False)


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call", [(os.system, "touch evil"), (eval, "1"), (np.load, "x"), (getattr, "", "join")]
)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused(cifar10, monkeypatch, call, protocol):
    monkeypatch.chdir(cifar10)
    file = cifar10 / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(pickle.dumps({"data": Malicious(*call)}, protocol=protocol))
    with pytest.raises(ValueError, match="it must hold plain values and arrays, got"):
        CIFAR10(path=cifar10, split="test", verify=False)
    assert not (cifar10 / "evil").exists()


@pytest.mark.parametrize("protocol", [3, 4])
def test_plain_pickles_of_today_are_read(tmp_path, protocol):
    content = {"a": np.arange(6, dtype="<i4").reshape(2, 3), "b": [1, 2.5, None, True, ("x",)]}
    (tmp_path / "a").write_bytes(pickle.dumps(content, protocol=protocol))
    found = load_plain(tmp_path / "a")
    assert np.array_equal(found["a"], content["a"])
    assert found["b"] == content["b"]


def test_bad_arguments(cifar10):
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        CIFAR10(path=cifar10, split="val")
    with pytest.raises(ValueError, match="image_size must be an integer of at least 1, got 0"):
        CIFAR10(path=cifar10, image_size=0, verify=False)


def test_pickles(cifar100):
    data = CIFAR100(path=cifar100, verify=False)
    assert torch.equal(pickle.loads(pickle.dumps(data))[2], data[2])
