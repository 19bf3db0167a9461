"""Output paths are checked ahead, and nothing is touched by the check."""

import os
import re

import pytest

from disentangle.output.files import check_file, check_folder, refuse_replacement, write_file


def test_a_file_that_can_be_written(tmp_path):
    check_file(tmp_path / "a.png", overwrite=False, endings=[".png", ".pdf"])
    check_file(tmp_path / "new" / "er" / "a", overwrite=False, new_folder=True)
    assert not list(tmp_path.iterdir())
    write_file(tmp_path / "new" / "a", b"1", overwrite=False)
    check_file(tmp_path / "new" / "a", overwrite=True)
    write_file(tmp_path / "new" / "a", b"2", overwrite=True)
    assert (tmp_path / "new" / "a").read_bytes() == b"2"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.txt", {"endings": [".png", ".pdf"]}, "the file must end in .png or .pdf, got "),
        ("none/a.png", {}, "there is no folder "),
        ("folder", {}, "folder cannot be written: it is a folder"),
        ("file/a", {"new_folder": True}, "file is not a writable folder"),
        ("link/a", {"new_folder": True}, "link is not a writable folder"),
        ("none/../a", {"new_folder": True}, "which leads up from no folder"),
    ],
)
def test_a_file_that_cannot(tmp_path, name, options, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ValueError, match=re.escape(message)):
        check_file(tmp_path / name, overwrite=True, **options)


def test_nothing_is_replaced_unless_asked(tmp_path):
    file = tmp_path / "a.png"
    file.write_text("mine")
    for refuse in (check_file, refuse_replacement):
        with pytest.raises(FileExistsError, match=r"a\.png exists: add --overwrite"):
            refuse(file, overwrite=False)
    with pytest.raises(FileExistsError):
        write_file(file, b"", overwrite=False)
    assert file.read_text() == "mine"


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="is not a writable folder"):
        check_folder(tmp_path / "new")
