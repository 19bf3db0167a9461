import pickle

import numpy as np
import pytest

from disentangle.data import MPI3D, GroundTruthData
from disentangle.data.ground_truth import mpi3d

SIZES = (2, 3, 2, 3, 1, 2, 2)
COUNT = 144
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(mpi3d, "FACTOR_SIZES", {COUNT: SIZES})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("mpi3d") / "mpi3d_toy.npz"
    np.savez(path, images=IMAGES)
    return path


def test_images_are_those_of_the_file(file):
    data = MPI3D(path=file)
    assert data.paths == (file,)
    assert isinstance(data, GroundTruthData)
    assert (len(data), data.image_size, data.image_channels) == (COUNT, 64, 3)
    indices = [143, 0, 7, 7]
    assert np.array_equal(data.__getitems__(indices), IMAGES[indices].transpose(0, 3, 1, 2))
    assert data.__getitems__([]).shape == (0, 3, 64, 64)


def test_the_last_factor_varies_fastest(file):
    data = MPI3D(path=file)
    ordered = IMAGES.reshape(*SIZES, 64, 64, 3)
    row = (1, 2, 0, 2, 0, 1, 0)
    assert np.array_equal(data.render([row])[0], ordered[row].transpose(2, 0, 1))


def test_a_folder_holds_each_variant_under_its_name(file, tmp_path):
    np.savez(tmp_path / "mpi3d_real.npz", images=IMAGES[::-1].copy())
    assert np.array_equal(MPI3D(path=tmp_path, variant="real")[0], IMAGES[-1].transpose(2, 0, 1))
    assert np.array_equal(MPI3D(path=file.parent)[0], IMAGES[0].transpose(2, 0, 1))
    with pytest.raises(FileNotFoundError, match=r"no mpi3d_realistic\.npz at"):
        MPI3D(path=tmp_path, variant="realistic")
    with pytest.raises(ValueError, match="must be one of toy, realistic, real, got 'complex'"):
        MPI3D(path=tmp_path, variant="complex")


def test_pickles_without_its_pixels(file):
    data = MPI3D(path=file)
    content = pickle.dumps(data)
    assert len(content) < 2000
    assert np.array_equal(pickle.loads(content)[9], data[9])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES[:10]}, r"shape \(144, 64, 64, 3\), got \(10, 64, 64, 3\)"),
        ({"images": IMAGES[..., :1]}, r"must have shape .*, got \(144, 64, 64, 1\)"),
        ({"images": np.uint8(3)}, r"must have shape .*, got \(\)"),
        ({"images": IMAGES.astype(float)}, "images must be row-major uint8, got .* float64"),
        ({"images": np.asfortranarray(IMAGES)}, "images must be row-major uint8, got column"),
        ({"images": np.array([{}], dtype=object)}, "images must be row-major uint8, got .* object"),
        ({"pictures": IMAGES}, "it must contain the array images, got pictures"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        MPI3D(path=tmp_path / "wrong.npz")
    assert "wrong.npz is not an MPI3D file" in str(error.value)
    assert "\n" not in str(error.value)


def test_compressed_truncated_and_foreign_files(file, tmp_path):
    path = tmp_path / "wrong.npz"
    np.savez_compressed(path, images=IMAGES)
    with pytest.raises(ValueError, match="must be neither compressed nor encrypted"):
        MPI3D(path=path)
    path.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match="is not an MPI3D file: File is not a zip file"):
        MPI3D(path=path)
    content = bytearray(file.read_bytes())
    content[:2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"wrong\.npz is not an MPI3D file"):
        MPI3D(path=path)


def test_a_header_of_another_length(file, tmp_path):
    content = file.read_bytes()
    start = content.index(b"'shape': (144, 64")
    path = tmp_path / "wrong.npz"
    path.write_bytes(content[:start] + content[start:].replace(b"(144,", b"(143,", 1))
    with pytest.raises(ValueError, match="images must have 1757312 bytes, got 1769600"):
        MPI3D(path=path)
    path.write_bytes(content[:start] + content[start:].replace(b"'shape'", b"'sh\nape", 1))
    with pytest.raises(ValueError, match="is not an MPI3D file") as error:
        MPI3D(path=path)
    assert "\n" not in str(error.value)
