import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disentangle.data import DSprites, GroundTruthData, RenderedSprites
from disentangle.data.ground_truth import dsprites

SIZES = (2, 2, 3, 4, 4)
NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"


def official_arrays(sizes=SIZES):
    """Arrays as in the official file, of fewer classes."""
    classes = np.indices((1, *sizes)).reshape(6, -1).T
    images = (RenderedSprites().render(classes[:, 1:])[:, 0] > 0).numpy().astype(np.uint8)
    metadata = np.array({"author": "pickled", "latents_sizes": np.array((1, *sizes))})
    return {
        "metadata": metadata,
        "imgs": images,
        "latents_classes": classes,
        "latents_values": classes.astype(np.float64),
    }


def write(path, **arrays):
    np.savez_compressed(path, **(official_arrays() | arrays))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("dsprites") / NAME)


@pytest.fixture(scope="module")
def data(file):
    return DSprites(path=file)


def test_factors_are_read_from_the_file(data):
    assert [path.suffix for path in data.paths] == [".npz"]
    assert isinstance(data, GroundTruthData)
    assert data.factor_names == RenderedSprites().factor_names
    assert data.factor_sizes == SIZES
    assert len(data) == 192
    assert (data.image_size, data.image_channels) == (64, 1)


def test_images_are_those_of_the_file(data):
    images = data.__getitems__(range(192))
    assert images.dtype == torch.uint8
    assert np.array_equal(images[:, 0], official_arrays()["imgs"] * 255)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(*(st.integers(0, size - 1) for size in SIZES)), min_size=1, max_size=9))
def test_render_answers_as_the_rendered_sprites(data, rows):
    assert torch.equal(data.render(rows), RenderedSprites().render(rows))
    assert data.factors(data.index(rows)).tolist() == [list(row) for row in rows]


def test_a_folder_holds_the_file_under_its_official_name(file, data):
    assert torch.equal(DSprites(path=str(file.parent))[17], data[17])


def test_pickles_and_samples(data):
    copy = pickle.loads(pickle.dumps(data))
    rows = copy.sample_factors(20, np.random.default_rng(0))
    assert (rows < SIZES).all()
    assert torch.equal(copy.render(rows), data.render(rows))


def test_images_of_several_chunks_and_of_odd_size(tmp_path):
    sizes = (3, 6, 40, 4, 2)
    classes = np.indices((1, *sizes)).reshape(6, -1).T
    images = np.random.default_rng(0).integers(0, 2, (len(classes), 5, 5), dtype=np.uint8)
    data = DSprites(path=write(tmp_path / "odd.npz", imgs=images, latents_classes=classes))
    assert len(data) == 5760
    assert np.array_equal(data.__getitems__(np.arange(5760))[:, 0], images * 255)


def test_missing_file(tmp_path):
    for path in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match="Google DeepMind on GitHub") as error:
            DSprites(path=path)
        assert NAME in str(error.value)
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)


def test_not_a_zip(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="is not the dSprites file: File is not a zip file"):
        DSprites(path=path)


def test_truncated_and_damaged_files(file, tmp_path):
    content = file.read_bytes()
    short = tmp_path / "short.npz"
    short.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"short.npz is not the dSprites file"):
        DSprites(path=short)
    damaged = tmp_path / "damaged.npz"
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("imgs.npy")
    middle = info.header_offset + info.compress_size // 2
    damaged.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(ValueError, match=r"damaged.npz is not the dSprites file"):
        DSprites(path=damaged)


def test_one_flipped_bit_is_found(tmp_path):
    path = tmp_path / "flipped.npz"
    np.savez(path, **official_arrays())
    content = bytearray(path.read_bytes())
    start = content.index(b"'shape': (192, 64, 64)")
    content[start + 5000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        DSprites(path=path)


CLASSES = official_arrays()["latents_classes"]
IMAGES = official_arrays()["imgs"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"imgs": IMAGES * 255}, "imgs must be 0 or 1, got 255"),
        ({"imgs": IMAGES.astype(float)}, "imgs must be row-major uint8, got row-major float64"),
        ({"imgs": np.asfortranarray(IMAGES)}, "imgs must be row-major uint8, got column-major"),
        (
            {"imgs": IMAGES[:, :32]},
            r"imgs must have shape \(192, size, size\), got \(192, 32, 64\)",
        ),
        ({"imgs": IMAGES[0]}, r"imgs must have shape \(192, size, size\), got \(64, 64\)"),
        ({"imgs": IMAGES[:100]}, r"shape \(192, size, size\), got \(100, 64, 64\)"),
        ({"latents_classes": CLASSES[:, :5]}, r"must have shape \(N, 6\), got \(192, 5\)"),
        ({"latents_classes": CLASSES[:0]}, r"must have shape \(N, 6\), got \(0, 6\)"),
        ({"latents_classes": CLASSES * 1.0}, "latents_classes must be integers, got float64"),
        ({"latents_classes": CLASSES[:-1]}, r"every combination of \(2, 2, 3, 4, 4\) classes once"),
        ({"latents_classes": CLASSES - np.eye(6, dtype=int)[5]}, "every combination"),
        ({"latents_classes": CLASSES + np.eye(6, dtype=int)[0]}, "must have one colour, 0, got 2"),
        (
            {"latents_classes": CLASSES[np.r_[0, 2, 1, 3:192]]},
            r"official order, with \[0, 0, 0, 0, 0, 1\] in row 1, got \[0, 0, 0, 0, 0, 2\]",
        ),
        (
            {"latents_classes": np.array([{}], dtype=object)},
            "latents_classes must hold plain values, got object",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_arrays(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message) as error:
        DSprites(path=write(tmp_path / "wrong.npz", **arrays))
    assert "wrong.npz" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["imgs", "latents_classes"])
def test_missing_array(tmp_path, name):
    arrays = official_arrays()
    del arrays[name]
    np.savez_compressed(tmp_path / "partial.npz", **arrays)
    with pytest.raises(ValueError, match=f"it must contain the array {name}, got"):
        DSprites(path=tmp_path / "partial.npz")


def test_a_file_of_the_official_sizes_must_have_the_official_checksum(file, monkeypatch):
    monkeypatch.setattr(dsprites, "OFFICIAL_SIZES", SIZES)
    message = r"is not the dSprites file: its md5 must be 7da33b31b13a06f4b04a70402ce90c2e, got"
    with pytest.raises(ValueError, match=message):
        DSprites(path=file)
    assert len(DSprites(path=file, verify=False)) == 192
