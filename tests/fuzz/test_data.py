"""Damaged and hostile files of data sets: read or refused, nothing else."""

import io
import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from disentangle.data import (
    CIFAR10,
    CUB200,
    LSUN,
    MPI3D,
    Cars3D,
    CelebA,
    DSprites,
    FGVCAircraft,
    ImageFolder,
    ScreamDSprites,
    Shapes3D,
    SmallNORB,
    StanfordCars,
)
from disentangle.data.ground_truth import cars3d, mpi3d, smallnorb
from disentangle.data.images.decoding import Decoder
from disentangle.evaluation import representations
from disentangle.evaluation.representations import read_points
from tests.helpers.damage import damaged, read_or_refuse, trap

RANDOM = np.random.default_rng(0)
SPRITES = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(mpi3d, "FACTOR_SIZES", {2: (2, 1, 1, 1, 1, 1, 1)})
    for name, value in {"OBJECTS": 1, "STORED_SIZE": 8, "STORED_SHAPE": (8, 8, 3, 2, 2)}.items():
        monkeypatch.setattr(cars3d, name, value)
    for name, value in {"AZIMUTHS": 2, "ELEVATIONS": 2, "IMAGE_SIZE": 8}.items():
        monkeypatch.setattr(cars3d, name, value)
    for name, value in {"ALL_SIZES": (2, 1, 1, 2, 1), "SPLIT_SIZE": 2, "STORED_SIZE": 8}.items():
        monkeypatch.setattr(smallnorb, name, value)


@dataclass
class Case:
    """Sound files, and how they are read: `read` reads every image."""

    files: list[Path]
    read: Callable[[], object]


def pixels(*shape, high=256):
    return RANDOM.integers(0, high, shape, dtype=np.uint8)


def encode(kind, size=(12, 10), mode="RGB"):
    file = io.BytesIO()
    image = Image.fromarray(pixels(size[1], size[0], 3))
    if mode == "I;16":  # to which PIL brings grey only
        image = image.convert("L")
    image.convert(mode).save(file, kind)
    return file.getvalue()


def fetch(data):
    return data.__getitems__(range(len(data)))


def write_sprites(folder, savez):
    classes = np.indices((1, 1, 2, 1, 2, 1)).reshape(6, -1).T
    savez(folder / SPRITES, imgs=pixels(4, 6, 6, high=2), latents_classes=classes)


def make_dsprites(folder):
    write_sprites(folder, np.savez_compressed)
    return Case([folder / SPRITES], lambda: fetch(DSprites(path=folder)))


def make_stored_dsprites(folder):
    write_sprites(folder, np.savez)
    return Case([folder / SPRITES], lambda: fetch(DSprites(path=folder)))


def make_scream(folder):
    write_sprites(folder, np.savez)
    file = folder / "scream.png"
    Image.fromarray(pixels(20, 20, 3)).save(file)
    return Case([file], lambda: fetch(ScreamDSprites(path=folder, picture=file)))


def make_mpi3d(folder):
    np.savez(folder / "mpi3d_toy.npz", images=pixels(2, 64, 64, 3))
    return Case([folder / "mpi3d_toy.npz"], lambda: fetch(MPI3D(path=folder)))


def make_shapes3d(folder):
    labels = np.indices((1, 2, 1, 1, 2, 1)).reshape(6, -1).T / 2
    with h5py.File(folder / "3dshapes.h5", "w") as file:
        options = {"chunks": (2, 16, 16, 1), "compression": "gzip"}
        file.create_dataset("images", data=pixels(4, 64, 64, 3), **options)
        file.create_dataset("labels", data=labels)
    return Case([folder / "3dshapes.h5"], lambda: fetch(Shapes3D(path=folder)))


def make_unpacked(folder):
    make_shapes3d(folder)
    np.save(folder / "images.npy", pixels(4, 64, 64, 3))
    file = folder / "images.npy"
    return Case([file], lambda: fetch(Shapes3D(path=folder, unpacked=file)))


def make_cars3d(folder):
    (folder / "list.txt").write_text("car\n")
    savemat(folder / "car.mat", {"im": pixels(8, 8, 3, 2, 2)}, do_compression=True)
    return Case([folder / "list.txt", folder / "car.mat"], lambda: fetch(Cars3D(path=folder)))


def make_smallnorb(folder):
    for number, split in enumerate(smallnorb.SPLITS):
        parts = {
            "dat": ("B", 0x1E3D4C55, pixels(2, 2, 8, 8)),
            "cat": ("<i4", 0x1E3D4C54, np.full(2, number)),
            "info": ("<i4", 0x1E3D4C54, np.array([[0, 0, 0, 0], [0, 0, 2, 0]])),
        }
        for part, (kind, magic, values) in parts.items():
            sizes = (*values.shape, *[1] * (3 - values.ndim))
            header = struct.pack(f"<{2 + len(sizes)}i", magic, values.ndim, *sizes)
            file = folder / f"smallnorb-{split}-{part}.mat"
            file.write_bytes(header + values.astype(kind).tobytes())
    return Case(sorted(folder.iterdir()), lambda: fetch(SmallNORB(path=folder)))


def make_cifar(folder):
    names = [f"data_batch_{number}" for number in range(1, 6)]
    for name in names:
        content = {"data": pixels(2, 3072), "labels": [0, 1]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=4))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}, protocol=4))
    files = [folder / "data_batch_1", folder / "batches.meta"]
    return Case(files, lambda: fetch(CIFAR10(path=folder, verify=False)))


def make_birds(folder):
    (folder / "images").mkdir()
    for number in (1, 2):
        (folder / "images" / f"{number}.jpg").write_bytes(encode("JPEG"))
    lists = {
        "images.txt": "1 1.jpg\n2 2.jpg\n",
        "image_class_labels.txt": "1 1\n2 2\n",
        "train_test_split.txt": "1 1\n2 0\n",
        "classes.txt": "1 black\n2 white\n",
    }
    for name, text in lists.items():
        (folder / name).write_text(text)
    files = [folder / name for name in lists]
    return Case(files, lambda: fetch(CUB200(path=folder, image_size=8)))


def make_aircraft(folder):
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "data" / "images" / "1.jpg").write_bytes(encode("JPEG", size=(12, 40)))
    lists = {"variants.txt": "707-320\n", "images_variant_train.txt": "1 707-320\n"}
    for name, text in lists.items():
        (folder / "data" / name).write_text(text)
    files = [folder / "data" / name for name in lists]
    return Case(files, lambda: fetch(FGVCAircraft(path=folder, image_size=8, split="train")))


def make_stanford_cars(folder):
    (folder / "devkit").mkdir()
    (folder / "cars_train").mkdir()
    (folder / "cars_train" / "1.jpg").write_bytes(encode("JPEG"))
    names = np.array(["a car", "another"], dtype=object)[None]
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    rows = np.array([(np.uint8(1), "1.jpg")], [("class", object), ("fname", object)])
    file = folder / "devkit" / "cars_train_annos.mat"
    savemat(file, {"annotations": rows}, do_compression=True)
    files = [file, folder / "devkit" / "cars_meta.mat"]
    return Case(files, lambda: fetch(StanfordCars(path=folder, image_size=8)))


def make_celeba(folder):
    (folder / "img_align_celeba").mkdir()
    (folder / "img_align_celeba" / "1.jpg").write_bytes(encode("JPEG"))
    lists = {"list_eval_partition.txt": "1.jpg 0\n", "list_attr_celeba.txt": "1\nBald\n1.jpg 1\n"}
    for name, text in lists.items():
        (folder / name).write_text(text)
    files = [folder / name for name in lists]
    return Case(files, lambda: fetch(CelebA(path=folder, image_size=8, crop=4)))


def make_lsun(folder):
    with lmdb.open(str(folder), map_size=2**22) as database, database.begin(write=True) as writer:
        for key in (b"a", b"b"):
            writer.put(key, encode("JPEG"))
    return Case([folder / "data.mdb"], lambda: fetch(LSUN(path=folder, image_size=8)))


def make_points(folder):
    arrays = {"codes": RANDOM.random((6, 2)), "factors": np.arange(12).reshape(6, 2)}
    np.savez_compressed(folder / "codes.npz", factor_names=np.array(["a", "b"]), **arrays)
    return Case([folder / "codes.npz"], lambda: read_points(folder / "codes.npz"))


def make_images(kind, mode="RGB"):
    def make(folder):
        file = folder / f"a.{kind.lower()}"
        file.write_bytes(encode(kind, mode=mode))
        return Case([file], lambda: fetch(ImageFolder(path=folder, image_size=8)))

    return make


def make_nameless(folder):
    (folder / "a.png").write_bytes(encode("PNG"))
    (folder / "b").write_bytes(encode("TIFF"))
    return Case([folder / "b"], lambda: fetch(ImageFolder(path=folder, image_size=8)))


CASES = {
    "dsprites": make_dsprites,
    "stored dsprites": make_stored_dsprites,
    "scream": make_scream,
    "mpi3d": make_mpi3d,
    "shapes3d": make_shapes3d,
    "unpacked shapes3d": make_unpacked,
    "cars3d": make_cars3d,
    "smallnorb": make_smallnorb,
    "cifar": make_cifar,
    "birds": make_birds,
    "aircraft": make_aircraft,
    "stanford cars": make_stanford_cars,
    "celeba": make_celeba,
    "points": make_points,
    "png": make_images("PNG"),
    "png of a palette": make_images("PNG", "P"),
    "jpeg": make_images("JPEG"),
    "webp": make_images("WEBP"),
    "bmp": make_images("BMP"),
    "ppm": make_images("PPM"),
    "tiff": make_images("TIFF"),
    "gif": make_images("GIF"),
    "png of 16 bits": make_images("PNG", "I;16"),
    "ppm of 16 bits": make_images("PPM", "I;16"),
    "tiff of 16 bits": make_images("TIFF", "I;16"),
    "image without extension": make_nameless,
}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    return CASES[request.param](tmp_path)


@pytest.mark.parametrize("length", [0, 100, 4096, 8191, 9000, -4096, -1])
def test_an_lmdb_file_that_was_cut(tmp_path, length):
    """Of which lmdb itself would read what is not there, and the process would end."""
    case = make_lsun(tmp_path)
    assert read_or_refuse(case.read)
    content = case.files[0].read_bytes()
    case.files[0].write_bytes(content[:length])
    assert not read_or_refuse(case.read)


@given(data=st.data())
def test_damaged_files_are_read_or_refused(case, data):
    file = data.draw(st.sampled_from(case.files))
    sound = file.read_bytes()
    assert read_or_refuse(case.read)
    file.write_bytes(data.draw(damaged(sound)))
    try:
        read_or_refuse(case.read)
    finally:
        file.write_bytes(sound)


TYPES = ["|u1", "<i8", "|O", "<U3", "|V8", ">f8", "<M8[s]", [("a", "|O")], "", "x", 3]
SIZES = st.one_of(st.integers(-3, 8), st.sampled_from([6, 10**6, 10**12, 2**63, 2**64, -(10**12)]))


@given(
    shape=st.one_of(st.lists(SIZES, max_size=4).map(tuple), st.sampled_from([(10**12,), 7, "a"])),
    descr=st.sampled_from(TYPES),
    column_major=st.sampled_from([False, True, 1]),
    content=st.binary(max_size=64),
    name=st.sampled_from(["imgs", "latents_classes", "codes", "factors", "images"]),
    pack=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]),
)
def test_array_headers_that_lie(tmp_path, shape, descr, column_major, content, name, pack):
    header = repr({"descr": descr, "fortran_order": column_major, "shape": shape}).encode()
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content
    for make in (make_dsprites, make_points, make_mpi3d):
        case = make(tmp_path)
        with zipfile.ZipFile(case.files[0]) as archive:
            members = {each: archive.read(each) for each in archive.namelist()}
        with zipfile.ZipFile(case.files[0], "w", pack) as archive:
            for each, sound in members.items():
                archive.writestr(each, member if each == f"{name}.npy" else sound)
        assert not read_or_refuse(case.read) or f"{name}.npy" not in members


def test_arrays_that_unpack_to_much_are_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(representations, "LIMIT", 2**20)
    np.savez_compressed(tmp_path / "a.npz", codes=np.zeros(2**18), factors=np.zeros((2, 2)))
    assert (tmp_path / "a.npz").stat().st_size < 2**13
    with pytest.raises(ValueError, match=r"codes must have 1048576 bytes at most, got 2097152"):
        read_points(tmp_path / "a.npz")
    write_sprites(
        tmp_path,
        lambda path, **arrays: np.savez_compressed(
            path, **arrays | {"imgs": np.zeros((4, 300, 300), dtype=np.uint8)}
        ),
    )
    with pytest.raises(ValueError, match="imgs must have 64 pixels a side at most, got 300"):
        DSprites(path=tmp_path)


def test_pickles_in_files_of_data_sets_are_not_obeyed(tmp_path):
    with trap(tmp_path) as caught:
        objects = np.array([caught], dtype=object)
        for make, name in ((make_dsprites, "imgs"), (make_points, "codes"), (make_mpi3d, "images")):
            case = make(tmp_path)
            np.savez(case.files[0], **dict(np.load(case.files[0])) | {name: objects})
            assert not read_or_refuse(case.read)
            case.files[0].write_bytes(pickle.dumps(caught))
            assert not read_or_refuse(case.read)
        case = make_cifar(tmp_path)
        for content in (caught, {"data": caught, "labels": [0]}, {"data": objects, "labels": [0]}):
            case.files[0].write_bytes(pickle.dumps(content))
            assert not read_or_refuse(case.read)


def test_the_pickled_metadata_of_dsprites_is_left_alone(tmp_path):
    with trap(tmp_path) as caught:
        case = make_dsprites(tmp_path)
        metadata = np.array(caught, dtype=object)
        np.savez(case.files[0], **dict(np.load(case.files[0])), metadata=metadata)
        assert read_or_refuse(case.read)


# Small pickles that make a reader take much memory, or arrays of things that are none.
HOSTILE_PICKLES = {
    "a memo of 4 GB": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a string of 1 TB": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "an array of 1 TB": (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n\x8a\x06"
        + (2**40).to_bytes(6, "little")
        + b"\x85U\x01btR."
    ),
    "an array of objects": b"\x80\x02cnumpy\ndtype\n(U\x01OK\x00K\x01tR.",
    "a function": b"\x80\x02cbuiltins\nprint\n(U\x01atR.",
    "a changed stand-in": b"\x80\x02cnumpy\ndtype\nN}U\x04funcU\x01as\x86b.",
    "deep lists": b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".",
}


@pytest.mark.parametrize("content", HOSTILE_PICKLES.values(), ids=HOSTILE_PICKLES)
def test_hostile_pickles(tmp_path, content):
    case = make_cifar(tmp_path)
    case.files[0].write_bytes(content)
    assert not read_or_refuse(case.read)


def png_of_size(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [header, data, b"IEND"]
    parts = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("size", [(20_000, 20_000), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_pictures_of_very_many_pixels_are_named_and_not_unpacked(tmp_path, size):
    (tmp_path / "large.png").write_bytes(png_of_size(*size))
    with pytest.raises(
        ValueError,
        match=rf"large.png: it must have 89,478,485 pixels at most, got {math.prod(size):,}",
    ):
        ImageFolder(path=tmp_path, image_size=8)
    data = ImageFolder(path=tmp_path, image_size=8, check=False)
    with pytest.raises(ValueError, match=r"large.png: it must have 89,478,485 pixels at most"):
        data[0]


def test_programs_are_not_run_for_pictures(tmp_path):
    """PIL hands PostScript to Ghostscript, whatever the name of the file says."""
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    with pytest.raises(ValueError, match=r"a.png: it must be one of BMP, GIF, JPEG, PNG"):
        Decoder(image_size=8).decode(tmp_path / "a.png", tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["soft", "external", "external array", "virtual", "large chunk"])
def test_shapes3d_reads_no_other_file(tmp_path, kind):
    (tmp_path / "other").mkdir()
    make_shapes3d(tmp_path / "other")
    other, shape = tmp_path / "other" / "3dshapes.h5", (4, 64, 64, 3)
    case = make_shapes3d(tmp_path)
    with h5py.File(case.files[0], "a") as file:
        del file["images"]
        if kind == "soft":
            file["images"] = h5py.SoftLink("/labels")
        elif kind == "external":
            file["images"] = h5py.ExternalLink(str(other), "images")
        elif kind == "external array":
            places = [(str(other), 0, math.prod(shape))]
            file.create_dataset("images", shape, "u1", external=places)
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape, "u1")
            layout[:] = h5py.VirtualSource(str(other), "images", shape)
            file.create_virtual_dataset("images", layout)
        else:
            if h5py.version.hdf5_version_tuple < (2,):
                pytest.skip("this HDF5 makes no such file")
            options = {"maxshape": (None,) * 4, "chunks": (4, 4096, 4096, 64)}
            file.create_dataset("images", shape, "u1", compression="gzip", **options)
    assert not read_or_refuse(case.read)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/hostname", "a/../../b", "a\0b", "."])
@pytest.mark.parametrize(
    "make", [make_birds, make_aircraft, make_celeba], ids=["cub", "fgvc", "celeba"]
)
def test_lists_name_files_of_their_folder_only(tmp_path, make, name):
    case = make(tmp_path)
    (tmp_path / "secret.jpg").write_bytes(encode("JPEG", size=(12, 40)))
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "secret.jpg").write_bytes(encode("JPEG", size=(12, 40)))
    for file in case.files:
        file.write_text(file.read_text().replace("1.jpg", name).replace("1 707", f"{name} 707"))
    assert not read_or_refuse(case.read)
