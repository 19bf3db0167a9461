import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from disentangle.data import Cars3D, GroundTruthData
from disentangle.data.ground_truth import cars3d

NAMES = ("car_002_mesh", "car_001_mesh", "car_010_mesh")  # not in the order of the alphabet
SHAPE = (128, 128, 3, 24, 4)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(cars3d, "OBJECTS", 3)


def views(number):
    """The official array of an object: smooth pictures, each view of its own colour."""
    rng = np.random.default_rng(number)
    ramp = np.linspace(0, 100, 128)
    colours = rng.integers(0, 156, (3, 24, 4))
    return (ramp[:, None, None, None, None] + colours + np.zeros(SHAPE)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "cars"
    folder.mkdir()
    (folder / "list.txt").write_text("\n".join(NAMES) + "\n")
    for number, name in enumerate(NAMES):
        mask = np.zeros((128, 128, 24, 4), dtype=np.uint8)
        arrays = {"im": views(number), "mask": mask}
        savemat(folder / f"{name}.mat", arrays, do_compression=True)
    return folder


@pytest.fixture(scope="module")
def data(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cars3d, "OBJECTS", 3)
        return Cars3D(path=folder)


def copy(folder, target):
    for file in folder.iterdir():
        (target / file.name).symlink_to(file)
    return target


def test_interface(data):
    assert len(data.paths) == len(set(data.paths)) == data.factor_sizes[2]
    assert isinstance(data, GroundTruthData)
    assert data.factor_names == ("elevation", "azimuth", "object_type")
    assert data.factor_sizes == (4, 24, 3)
    assert (len(data), data.image_size, data.image_channels) == (288, 64, 3)
    assert data.__getitems__([]).shape == (0, 3, 64, 64)


def test_images_are_those_of_the_files_shrunk(data):
    for row in [(0, 0, 0), (3, 23, 2), (1, 7, 0), (2, 0, 1)]:
        elevation, azimuth, number = row
        stored = Image.fromarray(views(number)[..., azimuth, elevation])
        stored.thumbnail((64, 64), Image.Resampling.LANCZOS)
        image = data.render([row])[0]
        assert image.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0), stored)


def test_the_object_varies_fastest(data):
    assert data.factors([0, 1, 3, 72]).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_pickles_and_is_found_in_the_folder_around(data, folder):
    images = data.__getitems__([0, 100, 287])
    assert torch.equal(pickle.loads(pickle.dumps(data)).__getitems__([0, 100, 287]), images)
    assert torch.equal(Cars3D(path=folder.parent).__getitems__([0, 100, 287]), images)


def test_missing_files(folder, tmp_path):
    copy(folder, tmp_path)
    (tmp_path / "car_001_mesh.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"no car_001_mesh\.mat at .*Scott Reed's page"):
        Cars3D(path=tmp_path)
    (tmp_path / "list.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no list\.txt at .*nips2015-analogy-data\.tar\.gz"
    ):
        Cars3D(path=tmp_path)


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (b"car_001_mesh\ncar_002_mesh\n", "must name 3 objects once, got 2 names"),
        (b"a\nb\na\n", "must name 3 objects once, got 3 names"),
        (b"a\nb\n../c\n", r"must name files of its own folder, got '\.\./c'"),
        (b"a\nb\n/etc/c\n", "must name files of its own folder, got '/etc/c'"),
        (b"\xff\xfe\n", "is not the list of Cars3D"),
    ],
)
def test_wrong_list(folder, tmp_path, listing, message):
    copy(folder, tmp_path)
    (tmp_path / "list.txt").unlink()
    (tmp_path / "list.txt").write_bytes(listing)
    with pytest.raises(ValueError, match=message) as error:
        Cars3D(path=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"im": np.zeros((64, 64, 3, 24, 4), dtype=np.uint8)},
            r"got \(\(64, 64, 3, 24, 4\), 'uint8'",
        ),
        ({"im": np.zeros(SHAPE, dtype=np.int8)}, "of uint8, got .*'int8'"),
        ({"im": np.array([{}], dtype=object)}, "of uint8, got .*'cell'"),
        ({"mask": np.zeros((2, 2))}, r"im must be \(128, 128, 3, 24, 4\) of uint8, got None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arrays(folder, tmp_path, arrays, message):
    copy(folder, tmp_path)
    (tmp_path / "car_001_mesh.mat").unlink()
    savemat(tmp_path / "car_001_mesh.mat", arrays, do_compression=True)
    with pytest.raises(ValueError, match=message) as error:
        Cars3D(path=tmp_path)
    assert "car_001_mesh.mat is not a Cars3D file" in str(error.value)
    assert "\n" not in str(error.value)


def test_foreign_and_truncated_files(folder, tmp_path):
    whole = (folder / "car_001_mesh.mat").read_bytes()
    copy(folder, tmp_path)
    file = tmp_path / "car_001_mesh.mat"
    damaged = whole[:2000] + bytes(500) + whole[2500:]
    for content in (b"", b"<html>not found</html>", whole[: len(whole) // 3], damaged):
        file.unlink()
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"car_001_mesh\.mat is not a Cars3D file") as error:
            Cars3D(path=tmp_path)
        assert "\n" not in str(error.value)
