import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from disentangle.data import GroundTruthData, SmallNORB
from disentangle.data.ground_truth import smallnorb
from disentangle.data.ground_truth.smallnorb import map_matrix

TRAINING = "smallnorb-5x46789x9x18x6x2x96x96-training"
TESTING = "smallnorb-5x01235x9x18x6x2x96x96-testing"
INSTANCES = {TRAINING: (4, 6, 7, 8, 9), TESTING: (0, 1, 2, 3, 5)}
SEED = {TRAINING: 1, TESTING: 2}


def header(magic, shape):
    sizes = (*shape, *[1] * (3 - len(shape)))
    return struct.pack(f"<{2 + len(sizes)}i", magic, len(shape), *sizes)


def official_factors(split):
    """Category, instance, elevation, azimuth and lighting of each image, shuffled as official."""
    rows = np.indices((5, 5, 9, 18, 6)).reshape(5, -1).T.astype("<i4")
    rows[:, 1] = np.take(INSTANCES[split], rows[:, 1])
    rows[:, 3] *= 2
    return np.random.default_rng(SEED[split]).permutation(rows)


def write(folder, change=lambda rows: rows):
    """The six files, at full size; only the images of the first rows take up room on the disk."""
    for split in INSTANCES:
        rows = change(official_factors(split))
        cat, info = header(0x1E3D4C54, (24_300,)), header(0x1E3D4C54, (24_300, 4))
        (folder / f"{split}-cat.mat").write_bytes(cat + rows[:, 0].tobytes())
        (folder / f"{split}-info.mat").write_bytes(info + rows[:, 1:].tobytes())
        with open(folder / f"{split}-dat.mat", "wb") as file:
            file.write(header(0x1E3D4C55, (24_300, 2, 96, 96)) + pairs(split).tobytes())
            file.truncate(24 + 24_300 * 2 * 96 * 96)
    return folder


def pairs(split):
    return np.random.default_rng(SEED[split]).integers(1, 256, (20, 2, 96, 96), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("smallnorb"))


@pytest.fixture(scope="module")
def data(folder):
    return SmallNORB(path=folder)


def index_of(rows):
    columns = rows.T // np.array([[1], [1], [1], [2], [1]])
    return np.ravel_multi_index(tuple(columns), (5, 10, 9, 18, 6))


def test_interface(data):
    assert len(set(data.paths)) == 6
    assert all(path.is_file() for path in data.paths)
    assert isinstance(data, GroundTruthData)
    assert data.factor_names == ("category", "elevation", "azimuth", "lighting")
    assert data.factor_sizes == (5, 9, 18, 6)
    assert (len(data), data.image_size, data.image_channels) == (48_600, 64, 1)
    assert data.__getitems__([]).shape == (0, 1, 64, 64)


@pytest.mark.parametrize("split", INSTANCES)
def test_images_are_the_left_ones_shrunk(data, split):
    images = data.__getitems__(index_of(official_factors(split)[:20]))
    assert images.dtype == torch.uint8
    for image, (left, _) in zip(images, pairs(split), strict=True):
        expected = Image.fromarray(left).resize((64, 64), Image.Resampling.LANCZOS)
        assert np.array_equal(image[0], expected)


@pytest.mark.parametrize("split", INSTANCES)
def test_factors_are_those_of_the_files_without_the_instance(data, split):
    rows = official_factors(split)
    expected = rows[:, [0, 2, 3, 4]] // [1, 1, 2, 1]
    assert np.array_equal(data.factors(index_of(rows)), expected)


def test_index_picks_each_instance_about_equally(data):
    rows = data.sample_factors(10_000, np.random.default_rng(0))
    indices = data.index(rows)
    assert np.array_equal(data.factors(indices), rows)
    _, instance, *_ = np.unravel_index(indices, (5, 10, 9, 18, 6))
    counts = np.bincount(instance)
    assert len(counts) == 10
    assert (abs(counts - 1000) < 150).all()  # five standard deviations
    same = data.index(np.tile(rows[:1], (200, 1)))
    assert len(np.unique(same)) == 10


def test_index_is_a_pure_function(data):
    rows = data.sample_factors(50, np.random.default_rng(0))
    assert np.array_equal(data.index(rows), data.index(rows.tolist()))
    assert torch.equal(data.render(rows), data.__getitems__(data.index(rows)))


def test_pickles_without_its_pixels(data):
    content = pickle.dumps(data)
    assert len(content) < 1_000_000
    assert torch.equal(pickle.loads(content)[17], data[17])


def test_bad_indices_and_factors(data):
    with pytest.raises(ValueError, match="between 0 and 48599, got 48600"):
        data[48_600]
    with pytest.raises(ValueError, match="between 0 and 48599, got -1"):
        data.factors([-1])
    with pytest.raises(ValueError, match="'azimuth' must be between 0 and 17, got 18"):
        data.index([[0, 0, 18, 0]])
    with pytest.raises(ValueError, match=r"shape \(N, 4\), got \(1, 5\)"):
        data.index([[0, 0, 0, 0, 0]])


@pytest.mark.parametrize("missing", ["training-dat", "testing-cat", "testing-info"])
def test_missing_file(folder, tmp_path, missing):
    for file in folder.iterdir():
        if missing not in file.name:
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(FileNotFoundError, match=rf"no smallnorb-.*-{missing}\.mat at") as error:
        SmallNORB(path=tmp_path)
    assert "New York University, and unpack it" in str(error.value)


def set_value(row, column, value):
    def change(rows):
        rows[row, column] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value(3, 0, 5), r"must be within \(5, 10, 9, 18, 6\), got \[5, "),
        (set_value(3, 1, -1), r"must be within .*, got \[\d, -1, "),
        (set_value(3, 3, 7), r"must be within .*, got \[\d, \d, \d, -1, "),
        (set_value(3, 3, 36), r"must be within .*, got \[\d, \d, \d, 18, "),
        (lambda rows: rows[np.r_[1, 1:24_300]], "every combination of .* once, got 48598 in 48600"),
    ],
)
def test_wrong_factors(tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as error:
        SmallNORB(path=write(tmp_path, change))
    assert f"{tmp_path} is not SmallNORB" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_file_is_named(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    wrong = tmp_path / f"{TESTING}-cat.mat"
    wrong.unlink()
    wrong.write_bytes(b"<html>not found, not found</html>")
    with pytest.raises(ValueError, match=r"testing-cat\.mat is not a SmallNORB file: it must"):
        SmallNORB(path=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "must begin with 20 bytes, got 5"),
        (header(0x1E3D4C54, (2, 3)) + bytes(6), r"begin with 0x1e3d4c55 \(uint8\), got 0x1e3d4c54"),
        (header(0x1E3D4C55, (3, 2)) + bytes(6), r"shape \(2, 3\), got 2 dimensions of \[3, 2, 1\]"),
        (header(0x1E3D4C55, (2, 3, 1)) + bytes(6), r"shape \(2, 3\), got 3 dimensions"),
        (header(0x1E3D4C55, (2, 3)) + bytes(5), "must have 26 bytes, got 25"),
        (header(0x1E3D4C55, (2, 3)) + bytes(7), "must have 26 bytes, got 27"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_matrices(tmp_path, content, message):
    file = tmp_path / "a.mat"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        map_matrix(file, "uint8", (2, 3))


def test_matrices(tmp_path):
    values = np.array([[1, -2, 3], [4, 5, 2**31 - 1]], dtype="<i4")
    file = tmp_path / "a.mat"
    file.write_bytes(header(0x1E3D4C54, (2, 3)) + values.tobytes())
    assert np.array_equal(map_matrix(file, "int32", (2, 3)).open(), values)


def test_splits_are_the_official_ones():
    assert [f"smallnorb-{split}" for split in smallnorb.SPLITS] == [TRAINING, TESTING]
