import re

import numpy as np
import pytest
from PIL import Image

from disentangle import show_data
from disentangle.data import ClassFolder, RenderedSprites
from disentangle.show_data import COMMAND, main

TABLE = """\
737280 images of shape (1, 64, 64)
factor       size  values
shape           3  0 to 2
scale           6  0 to 5
orientation    40  0 to 39
x              32  0 to 31
y              32  0 to 31
"""


@pytest.fixture
def drawn(monkeypatch):
    """The frames, labels and title of each row that is drawn."""
    rows = []

    def spy(frames, row_labels, column_labels, *, title):
        rows.append((frames, row_labels, column_labels, title))
        return real(frames, row_labels, column_labels, title=title)

    real = show_data.traversal_grid
    monkeypatch.setattr(show_data, "traversal_grid", spy)
    return rows


@pytest.fixture
def folder(tmp_path):
    """A folder of three grey images."""
    path = tmp_path / "images"
    path.mkdir()
    for grey in (0, 100, 200):
        Image.new("L", (20, 20), grey).save(path / f"{grey:03}.png")
    return path


@pytest.mark.parametrize("options", [[], ["--stats"]])
def test_the_table_of_factors(capsys, options):
    assert main(["sprites", *options]) == 0
    assert capsys.readouterr() == (TABLE, "")


def test_a_factor_of_one_value(capsys):
    assert main(["sprites", "--data.orientations", "1", "--data.image_size", "32"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "18432 images of shape (1, 32, 32)"
    assert printed[4] == "orientation     1  0"


def test_a_row_for_each_factor(tmp_path, capsys, drawn):
    file = tmp_path / "preview.png"
    assert main(["sprites", "--preview", str(file)]) == 0
    assert capsys.readouterr().out == f"preview: {file}\n"
    sprites = RenderedSprites()
    base = sprites.sample_factors(1, np.random.default_rng(0))
    titles = [title for *_, title in drawn]
    assert titles == [
        "shape (3 values)",
        "scale (6 values)",
        "orientation (15 of 40 values)",
        "x (15 of 32 values)",
        "y (15 of 32 values)",
    ]
    for k, (frames, _, labels, _) in enumerate(drawn):
        assert (labels[0], labels[-1]) == ("0", str(sprites.factor_sizes[k] - 1))
        for value, frame in zip(labels, frames[0, 0], strict=True):
            factors = base.copy()
            factors[0, k] = int(value)
            assert (frame == sprites.render(factors)[0] / 127.5 - 1).all()
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.width > 15 * 64
        assert picture.height > 5 * 64


def test_both_at_once_and_the_seed_of_what_is_fixed(tmp_path, capsys):
    pictures = []
    for number, seed in enumerate(("0", "0", "1")):
        file = tmp_path / f"{number}.png"
        assert main(["sprites", "--preview", str(file), "--stats", "--seed", seed]) == 0
        assert capsys.readouterr().out == f"{TABLE}preview: {file}\n"
        pictures.append(file.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_set_without_factors(folder, tmp_path, capsys):
    file = tmp_path / "preview.png"
    arguments = ["folder", "--data.path", str(folder), "--data.image_size", "16"]
    assert main([*arguments, "--stats", "--preview", str(file)]) == 0
    assert capsys.readouterr().out == f"3 images of shape (3, 16, 16)\npreview: {file}\n"
    with Image.open(file) as picture:
        assert [picture.getpixel(at)[0] for at in ((8, 8), (26, 8), (8, 26))] == [0, 100, 200]


def test_a_file_is_replaced_only_if_that_was_asked_for(tmp_path, complaint):
    file = tmp_path / "preview.png"
    file.write_text("mine")
    arguments = ["sprites", "--preview", str(file)]
    assert f"{file} exists: add --overwrite" in complaint(main, arguments)
    assert file.read_text() == "mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_bad_input_gets_one_line(tmp_path, complaint):
    sets = ", ".join(show_data.DATA_SETS)
    cases = [
        ([], f"the name of a data set must come first; choose one of: {sets}"),
        (["--stats", "sprites"], f"the name of a data set must come first; choose one of: {sets}"),
        (["sprits"], f"no data set 'sprits'; choose one of: {sets}"),
        (["sprites", "--data.orientation", "1"], "did you mean data.orientations?"),
        (["sprites", "--data.image_size", "8"], "image_size must be an integer of at least 16"),
        (["sprites", "--preview", tmp_path / "a.jpg"], "the file must end in .png, got"),
        (["sprites", "--preview", tmp_path / "no" / "a.png"], "there is no folder"),
        (["dsprites", "--data.path", tmp_path], "get it from dsprites-dataset"),
        (["dsprites"], "data.path"),
    ]
    for arguments, message in cases:
        assert message in complaint(main, arguments), arguments
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["folder", None])
def test_help_shows_the_options_of_the_data_set(capsys, name):
    with pytest.raises(SystemExit) as exited:
        main([*([name] if name else []), "--help"])
    assert exited.value.code == 0
    expected = "--data.on_corrupt" if name else "--data.orientations"
    assert expected in capsys.readouterr().out


def test_the_command_is_known(monkeypatch, capsys):
    from disentangle.__main__ import main as console

    monkeypatch.setattr("sys.argv", ["disentangle", COMMAND, "sprites"])
    with pytest.raises(SystemExit) as exited:
        console()
    assert exited.value.code == 0
    assert capsys.readouterr().out == TABLE


def test_a_set_with_classes_has_a_row_and_a_count_for_each(tmp_path, capsys):
    file = tmp_path / "digits.png"
    main(["digits", "--preview", str(file), "--stats"])
    counts = re.findall(r"^(\d)  +(\d+)$", capsys.readouterr().out, flags=re.MULTILINE)
    assert [name for name, _ in counts] == list("0123456789")
    assert sum(int(count) for _, count in counts) == 1437
    rows = np.asarray(Image.open(file).convert("L")).std(axis=1) > 20
    assert np.count_nonzero(np.diff(rows.astype(int)) == 1) >= 10


def test_a_sheet_has_as_many_columns_as_every_class_has_images(tmp_path):
    for name, count in (("a", 3), ("b", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    data = ClassFolder(path=tmp_path, image_size=8, test_fraction=1e-9)
    grid = show_data.draw_classes(data)
    assert grid.width > 2 * 64
    assert grid.width < 3.5 * 64


def test_what_is_left_out_is_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "list.csv").touch()
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / "a" / f"{i}.png")
    options = ["--data.path", str(tmp_path), "--data.image_size", "8"]
    line = "left out: 1 unsupported file (1 .csv)"
    for more in ([], ["--preview", str(tmp_path / "preview.png")]):
        assert main(["folder", *options, *more]) == 0
        assert line in capsys.readouterr().out.splitlines()
    (tmp_path / "preview.png").unlink()
    assert main(["class_folder", *options, "--data.test_fraction", "1e-9"]) == 0
    assert f"{line}; folders without images of their own: empty" in capsys.readouterr().out
