import pickle
import sys

import h5py
import numpy as np
import pytest

from disentangle.data import GroundTruthData, Shapes3D
from disentangle.data.ground_truth import shapes3d
from disentangle.data.official import OfficialFile

SIZES = (2, 3, 1, 2, 4, 3)
COUNT = 144
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 64, 64, 3), dtype=np.uint8)
# Values as in the official file: hues and scales in [0, 1], orientations in degrees.
LABELS = np.indices(SIZES).reshape(6, -1).T * [0.1, 0.1, 0.1, 1 / 7, 1, 30]


def write(path, images=IMAGES, labels=LABELS, **storage):
    with h5py.File(path, "w") as file:
        if images is not None:
            file.create_dataset("images", data=images, **storage)
        file.create_dataset("labels", data=labels)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("shapes3d") / "3dshapes.h5"
    return write(path, chunks=(20, 8, 8, 1), compression="gzip")


def test_interface(file):
    data = Shapes3D(path=file)
    assert isinstance(data, GroundTruthData)
    assert data.factor_names == shapes3d.FACTOR_NAMES
    assert data.factor_sizes == SIZES
    assert (len(data), data.image_size, data.image_channels) == (COUNT, 64, 3)
    assert np.array_equal(Shapes3D(path=file.parent)[3], data[3])


@pytest.mark.parametrize("unpacked", [False, True])
def test_images_in_any_order_and_repeated(file, tmp_path, unpacked):
    data = Shapes3D(path=file, unpacked=tmp_path / "images.npy" if unpacked else None)
    assert data.paths == (file, *([tmp_path / "images.npy"] if unpacked else []))
    indices = [143, 0, 7, 143, 7, 60]
    assert np.array_equal(data.__getitems__(indices), IMAGES[indices].transpose(0, 3, 1, 2))
    assert np.array_equal(data.__getitems__(range(COUNT)), IMAGES.transpose(0, 3, 1, 2))
    assert data.__getitems__([]).shape == (0, 3, 64, 64)
    row = (1, 2, 0, 1, 3, 2)
    ordered = IMAGES.reshape(*SIZES, 64, 64, 3)
    assert np.array_equal(data.render([row])[0], ordered[row].transpose(2, 0, 1))
    copy = pickle.dumps(data)
    assert len(copy) < 2000
    assert np.array_equal(pickle.loads(copy)[5], data[5])


@pytest.mark.parametrize("storage", [{"chunks": (50, 16, 16, 1)}, {}])
def test_unpacking_writes_the_images_once(tmp_path, monkeypatch, storage):
    monkeypatch.setattr(shapes3d, "BLOCK_LIMIT", 70 * 64 * 64 * 3)
    file, unpacked = write(tmp_path / "a.h5", **storage), tmp_path / "folder" / "images.npy"
    unpacked.parent.mkdir()
    Shapes3D(path=file, unpacked=unpacked)
    assert np.array_equal(np.load(unpacked), IMAGES)
    assert list(unpacked.parent.iterdir()) == [unpacked]
    np.save(unpacked, IMAGES[::-1].copy())
    assert np.array_equal(Shapes3D(path=file, unpacked=unpacked)[0], IMAGES[-1].transpose(2, 0, 1))


def test_unpacking_that_fails_leaves_nothing(file, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shapes3d.os, "fsync", fail)
    with pytest.raises(OSError, match=r"^\[Errno 28\]"):
        Shapes3D(path=file, unpacked=tmp_path / "images.npy")
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        Shapes3D(path=file, unpacked=tmp_path / "absent" / "images.npy")


def test_images_packed_too_densely_need_an_unpacked_file(tmp_path, monkeypatch):
    file = write(tmp_path / "dense.h5", chunks=(100, 8, 8, 1), compression="gzip")
    monkeypatch.setattr(shapes3d, "CHUNK_LIMIT", 99 * 64 * 64 * 3)
    with pytest.raises(ValueError, match=r"packs 100 images together, .* as unpacked") as error:
        Shapes3D(path=file)
    assert "\n" not in str(error.value)
    data = Shapes3D(path=file, unpacked=tmp_path / "images.npy")
    assert np.array_equal(data[100], IMAGES[100].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("images", "message"),
    [(IMAGES[:-1], r"must have shape \(144, 64, 64, 3\), got \(143, "), (IMAGES[0], "must be row")],
)
def test_wrong_unpacked_file(file, tmp_path, images, message):
    wrong = np.asfortranarray(images) if images.ndim == 3 else images
    np.save(tmp_path / "images.npy", wrong)
    with pytest.raises(ValueError, match=message) as error:
        Shapes3D(path=file, unpacked=tmp_path / "images.npy")
    assert "images.npy is not the unpacked images of Shapes3D" in str(error.value)


def test_a_file_of_the_official_sizes_must_have_the_official_checksum(file, monkeypatch):
    monkeypatch.setattr(shapes3d, "FACTOR_SIZES", SIZES)
    with pytest.raises(ValueError, match=r"is not the Shapes3D file: its sha256 must be 0a0f6ed9"):
        Shapes3D(path=file)
    assert len(Shapes3D(path=file, verify=False)) == COUNT
    other = OfficialFile("3dshapes.h5", "a page", "md5:d41d8cd98f00b204e9800998ecf8427e")
    monkeypatch.setattr(shapes3d, "OFFICIAL", other)
    with pytest.raises(ValueError, match="its md5 must be d41d8cd98f00b204e9800998ecf8427e"):
        Shapes3D(path=file)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES[:-1]}, r"images must have shape \(144, 64, 64, 3\) .* got \(143, "),
        ({"images": IMAGES[:, :32]}, r"images must have shape .* got \(144, 32, 64, 3\)"),
        ({"images": IMAGES / 255}, r"images must .* be uint8, got .* float64"),
        ({"images": None}, "it must contain the array images, got labels"),
        ({"labels": LABELS[:, :5]}, r"labels must have shape \(480000, 6\), got \(144, 5\)"),
        ({"labels": LABELS[:0]}, r"labels must have shape \(480000, 6\), got \(0, 6\)"),
        ({"labels": LABELS.astype(int)}, "labels must be floats, got int64"),
        (
            {"labels": LABELS[:-1]},
            r"combination of \(2, 3, 1, 2, 4, 3\) values once, got 143",
        ),
        ({"labels": LABELS[::-1]}, "labels must be in the official order, but floor_hue is not"),
        ({"labels": LABELS[np.r_[1, 0, 2:144]]}, "official order, but orientation is not"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arrays(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message) as error:
        Shapes3D(path=write(tmp_path / "wrong.h5", **arrays))
    assert "wrong.h5 is not the Shapes3D file" in str(error.value)
    assert "\n" not in str(error.value)


def test_foreign_and_truncated_files(file, tmp_path):
    path = tmp_path / "wrong.h5"
    for content in (b"<html>not found</html>", file.read_bytes()[:3000], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"wrong\.h5 is not the Shapes3D file") as error:
            Shapes3D(path=path)
        assert "\n" not in str(error.value)
    with h5py.File(path, "w") as group:
        group.create_group("labels")
    with pytest.raises(ValueError, match="it must contain the array labels"):
        Shapes3D(path=path)


def test_without_h5py(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs h5py: pip install 'disentangle\[data\]'"):
        Shapes3D(path=file)
