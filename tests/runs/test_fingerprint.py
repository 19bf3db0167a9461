import os
import shutil
from dataclasses import asdict

import pytest
from PIL import Image

from disentangle.data import Digits, ImageFolder, RenderedSprites
from disentangle.data.labelled.subset import hold_out
from disentangle.runs.fingerprint import MODIFIED, Fingerprint


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    (folder / "inner").mkdir(parents=True)
    for name in ("1.bmp", "2.bmp", "inner/3.bmp"):
        Image.new("L", (8, 8)).save(folder / name)
    return folder


def fingerprint(folder):
    return Fingerprint.of(ImageFolder(path=folder, image_size=8, check=False))


def test_the_same_files_elsewhere_are_the_same(folder, tmp_path):
    then = asdict(fingerprint(folder))
    assert fingerprint(folder).describe_change(then) is None
    shutil.copytree(folder, tmp_path / "elsewhere")  # with their times
    assert fingerprint(tmp_path / "elsewhere").describe_change(then) is None


def rename(folder):
    (folder / "1.bmp").rename(folder / "0.bmp")


def move(folder):
    (folder / "inner/3.bmp").rename(folder / "3.bmp")


def enlarge(folder):
    Image.new("L", (9, 9)).save(folder / "2.bmp")


@pytest.mark.parametrize("change", [rename, move, enlarge])
def test_other_files_of_the_same_number_are_noticed(folder, change):
    then = asdict(fingerprint(folder))
    change(folder)
    described = fingerprint(folder).describe_change(then)
    assert described == "names or sizes of the data set's files have changed"


def test_other_content_of_the_same_size_is_noticed_by_its_time(folder):
    then = asdict(fingerprint(folder))
    Image.new("L", (8, 8), 255).save(folder / "2.bmp")
    os.utime(folder / "2.bmp", ns=(0, 1))
    assert fingerprint(folder).describe_change(then) == MODIFIED


def test_another_number_of_images_is_told(folder):
    then = asdict(fingerprint(folder))
    (folder / "2.bmp").unlink()
    described = fingerprint(folder).describe_change(then)
    assert described == "the data set had 3 images and has 2 now"


@pytest.mark.parametrize("then", [{}, {"images": None}, {"images": 3}])
def test_older_checkpoints_know_less(folder, then):
    assert fingerprint(folder).describe_change(then) is None


def test_rendered_images_have_no_files():
    sprites = Fingerprint.of(RenderedSprites(image_size=32))
    assert sprites == Fingerprint.of(RenderedSprites(image_size=32))
    assert sprites.files == Fingerprint.of(Digits()).files


def test_a_missing_file_is_an_error_when_it_is_asked_for(folder):
    data = ImageFolder(path=folder, image_size=8, check=False)
    (folder / "1.bmp").unlink()
    assert Fingerprint.of(data) != fingerprint(folder)


def test_parts_are_of_the_files_of_the_whole():
    whole = Digits()
    whole.paths = ("a",)
    assert all(part.paths == whole.paths for part in hold_out(whole, 0.1))
