import hashlib
import pickle

import numpy as np
import pytest

from disentangle.data import (
    MPI3D,
    Cars3D,
    ColorDSprites,
    DSprites,
    NoisyDSprites,
    Shapes3D,
    SmallNORB,
)
from disentangle.data.ground_truth import cars3d, dsprites, mpi3d, shapes3d, smallnorb
from disentangle.data.official import MappedArray, OfficialFile, refuse_broken

# Names in our words; sizes, order and what is hidden as in disentanglement_lib.
OFFICIAL = {
    "dsprites": (
        dsprites.FACTOR_NAMES,
        dsprites.OFFICIAL_SIZES,
        {"shape": 3, "scale": 6, "orientation": 40, "x": 32, "y": 32},
    ),
    "shapes3d": (
        shapes3d.FACTOR_NAMES,
        shapes3d.FACTOR_SIZES,
        {
            "floor_hue": 10,
            "wall_hue": 10,
            "object_hue": 10,
            "scale": 8,
            "shape": 4,
            "orientation": 15,
        },
    ),
    "cars3d": (
        cars3d.FACTOR_NAMES,
        (cars3d.ELEVATIONS, cars3d.AZIMUTHS, cars3d.OBJECTS),
        {"elevation": 4, "azimuth": 24, "object_type": 183},
    ),
    "smallnorb": (
        smallnorb.FACTOR_NAMES,
        tuple(smallnorb.ALL_SIZES[column] for column in smallnorb.VISIBLE),
        {"category": 5, "elevation": 9, "azimuth": 18, "lighting": 6},
    ),
    "mpi3d, real": (
        mpi3d.FACTOR_NAMES,
        mpi3d.FACTOR_SIZES[1_036_800],
        {
            "object_color": 6,
            "object_shape": 6,
            "object_size": 2,
            "camera_height": 3,
            "background_color": 3,
            "first_dof": 40,
            "second_dof": 40,
        },
    ),
    "mpi3d, of disentanglement_lib": (
        mpi3d.FACTOR_NAMES,
        mpi3d.FACTOR_SIZES[460_800],
        {
            "object_color": 4,
            "object_shape": 4,
            "object_size": 2,
            "camera_height": 3,
            "background_color": 3,
            "first_dof": 40,
            "second_dof": 40,
        },
    ),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_factors_are_those_of_disentanglement_lib(name):
    names, sizes, expected = OFFICIAL[name]
    assert dict(zip(names, sizes, strict=True)) == expected
    assert names == tuple(expected)


def test_image_counts_are_the_published_ones():
    counts = {name: np.prod(sizes) for name, (_, sizes, _) in OFFICIAL.items()}
    assert counts == {
        "dsprites": 737_280,
        "shapes3d": 480_000,
        "cars3d": 17_568,
        "smallnorb": 4_860,  # of ten instances each
        "mpi3d, real": 1_036_800,
        "mpi3d, of disentanglement_lib": 460_800,
    }
    assert all(np.prod(sizes) == count for count, sizes in mpi3d.FACTOR_SIZES.items())


@pytest.mark.parametrize(
    ("data_set", "name", "project"),
    [
        (DSprites, "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", "Google DeepMind on GitHub"),
        (ColorDSprites, "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", "dsprites-dataset"),
        (NoisyDSprites, "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", "dsprites-dataset"),
        (Shapes3D, "3dshapes.h5", "3d-shapes by Google DeepMind on GitHub"),
        (Cars3D, "list.txt", "Deep Visual Analogy-Making"),
        (SmallNORB, "smallnorb-5x46789x9x18x6x2x96x96-training-dat.mat", "New York University"),
        (MPI3D, "mpi3d_toy.npz", "disentanglement_dataset by rr-learning on GitHub"),
    ],
)
def test_a_missing_file_is_named_with_place_and_project(data_set, name, project, tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError) as error:
            data_set(path=path)
        message = str(error.value)
        assert name in message
        assert project in message
        assert str(path) in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("data_set", "checksum"),
    [
        (DSprites, "md5:7da33b31b13a06f4b04a70402ce90c2e"),
        (Shapes3D, "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785"),
    ],
)
def test_a_missing_file_is_told_with_its_published_checksum(data_set, checksum, tmp_path):
    with pytest.raises(FileNotFoundError, match=checksum):
        data_set(path=tmp_path)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_checksum(tmp_path, algorithm):
    file = tmp_path / "a"
    file.write_bytes(b"content")
    digest = hashlib.new(algorithm, b"content").hexdigest()
    OfficialFile("a", "a page", f"{algorithm}:{digest}").verify(file)
    OfficialFile("a", "a page").verify(file)
    file.write_bytes(b"c0ntent")
    with pytest.raises(ValueError, match=f"its {algorithm} must be {digest}, got [0-9a-f]+ "):
        OfficialFile("a", "a page", f"{algorithm}:{digest}").verify(file)


def test_mapped_array_pickles_as_its_place(tmp_path):
    values = np.arange(1000, dtype="<i4").reshape(10, 100)
    file = tmp_path / "a"
    file.write_bytes(b"start" + values.tobytes())
    mapped = MappedArray(file, 5, (10, 100), "<i4")
    content = pickle.dumps(mapped)
    assert len(content) < 1000
    assert np.array_equal(pickle.loads(content).open(), values)
    with pytest.raises(ValueError, match="it must have at least 4045 bytes, got 4005"):
        MappedArray(file, 45, (10, 100), "<i4")


def test_broken_files_are_refused_in_one_line(tmp_path):
    with (
        pytest.raises(ValueError, match=r"^a is not the file: two lines$"),
        refuse_broken("a", "the file"),
    ):
        raise RuntimeError("two\nlines")
    with (
        pytest.raises(ValueError, match="a is not the file: EOFError"),
        refuse_broken("a", "the file"),
    ):
        raise EOFError
    with pytest.raises(IsADirectoryError), refuse_broken("a", "the file"):
        tmp_path.read_bytes()
