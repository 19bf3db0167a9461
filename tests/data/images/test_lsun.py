import builtins
import io
import pickle

import lmdb
import numpy as np
import pytest
import torch
from PIL import Image

from disentangle.data import LSUN, ImageData, ImageFolder


def picture(number):
    generator = np.random.default_rng(number)
    return generator.integers(0, 256, (20, 16 + number, 3), dtype=np.uint8)


def encode(number, kind):
    file = io.BytesIO()
    Image.fromarray(picture(number)).save(file, kind)
    return file.getvalue()


def write(folder, content):
    with lmdb.open(str(folder), map_size=2**22) as database, database.begin(write=True) as writer:
        for key, value in content.items():
            writer.put(key.encode(), value)


@pytest.fixture
def church(tmp_path):
    """Five images, written in another order than that of their keys."""
    folder = tmp_path / "church_outdoor_train_lmdb"
    kinds = ("WEBP", "JPEG", "PNG", "JPEG", "WEBP")
    images = {f"{7 * k % 5:040x}": encode(7 * k % 5, kinds[7 * k % 5]) for k in range(5)}
    write(folder, images)
    return folder


def test_images_are_those_of_the_keys_in_order(church, tmp_path):
    data = LSUN(path=church, image_size=16)
    assert data.paths == (church / "data.mdb",)
    assert isinstance(data, ImageData)
    assert (len(data), data.image_size, data.image_channels) == (5, 16, 3)
    assert data.keys.tolist() == [f"{number:040x}".encode() for number in range(5)]
    with lmdb.open(str(church), readonly=True, lock=False) as database, database.begin() as reader:
        for number in range(5):
            (tmp_path / "files").mkdir(exist_ok=True)
            file = reader.get(f"{number:040x}".encode())
            (tmp_path / "files" / f"{number}.jpg").write_bytes(file)
    expected = ImageFolder(path=tmp_path / "files", image_size=16)
    assert torch.equal(data.__getitems__([4, 0, 2]), expected.__getitems__([4, 0, 2]))


def test_crop_and_grey(church):
    data = LSUN(path=church, image_size=8, image_channels=1, crop=8)
    grey = np.asarray(Image.fromarray(picture(2)).convert("L"))
    assert np.array_equal(data[2][0], grey[6:14, 5:13])


def test_nothing_is_written_into_the_folder(church):
    before = sorted((file.name, file.stat().st_mtime_ns) for file in church.iterdir())
    LSUN(path=church, image_size=16)[0]
    assert sorted((file.name, file.stat().st_mtime_ns) for file in church.iterdir()) == before


def test_two_sets_may_read_the_same_folder(church):
    first, second = LSUN(path=church, image_size=16), LSUN(path=church, image_size=16, check=False)
    assert torch.equal(first[3], second[3])


# Python 3.12 and later warn of any fork of a process with threads, such as those of PyTorch.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_workers(church):
    data = LSUN(path=church, image_size=16)
    loader = torch.utils.data.DataLoader(
        data,
        batch_sampler=[[0, 1], [2], [3, 4]],
        collate_fn=torch.Tensor.contiguous,
        num_workers=1,
        multiprocessing_context="fork",
    )
    assert torch.equal(torch.cat(list(loader)), data.__getitems__(range(5)))


def test_pickles_as_its_place(church):
    data = LSUN(path=church, image_size=16)
    content = pickle.dumps(data)
    assert len(content) < 1500
    assert torch.equal(pickle.loads(content)[3], data[3])


def test_a_corrupt_image_is_an_error_that_names_it(church):
    write(church, {"f" * 40: b"no image"})
    with pytest.raises(ValueError, match=f"church_outdoor_train_lmdb, key {'f' * 40}: ") as error:
        LSUN(path=church, image_size=16)
    assert "--data.on_corrupt skip" in str(error.value)
    assert "\n" not in str(error.value)


def test_without_check_it_is_an_error_when_it_is_read(church):
    write(church, {"f" * 40: encode(0, "JPEG")[:-20]})
    data = LSUN(path=church, image_size=16, check=False)
    assert len(data) == 6
    assert data[4].shape == (3, 16, 16)
    with pytest.raises(ValueError, match=f"key {'f' * 40}: .*--data.check true --data.on_corrupt"):
        data[5]


def test_corrupt_images_are_skipped_when_asked(church):
    write(church, {"0": b"", "f" * 40: b"no image"})
    data = LSUN(path=church, image_size=16, on_corrupt="skip")
    assert data.skipped == (f"{church}, key 0", f"{church}, key {'f' * 40}")
    assert len(data) == 5
    assert torch.equal(data[0], LSUN(path=church, image_size=16, check=False)[1])


def test_missing_and_damaged_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data.mdb at .*get it from LSUN by Yu et al"):
        LSUN(path=tmp_path, image_size=16)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(ValueError, match="damaged is not an lmdb folder: "):
        LSUN(path=tmp_path / "damaged", image_size=16)
    write(tmp_path / "empty", {})
    with pytest.raises(ValueError, match="empty is not an lmdb folder: it has no images"):
        LSUN(path=tmp_path / "empty", image_size=16)


def test_without_lmdb(church, monkeypatch):
    real = builtins.__import__

    def fail(name, *arguments, **options):
        if name == "lmdb":
            raise ModuleNotFoundError("No module named 'lmdb'", name="lmdb")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ModuleNotFoundError, match=r"LSUN needs lmdb: pip install 'disentangle\["):
        LSUN(path=church, image_size=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size must be an integer of at least 1, got 0"),
        ({"image_channels": 2}, "image_channels must be 1 or 3, got 2"),
        ({"on_corrupt": "ignore"}, "on_corrupt must be 'error' or 'skip', got 'ignore'"),
        ({"crop": 30}, "a square of 30 pixels does not fit into 16 × 20"),
    ],
)
def test_bad_arguments(church, options, message):
    with pytest.raises(ValueError, match=message):
        LSUN(**{"path": church, "image_size": 8, **options})
