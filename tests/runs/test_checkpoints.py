import json

import pytest
import torch
from accelerate import Accelerator

from disentangle.runs.checkpoints import (
    drop_checkpoints_after,
    find_checkpoint,
    read_step,
    save_checkpoint,
    torn_checkpoints,
)


@pytest.fixture
def accelerator():
    accelerator = Accelerator(cpu=True)
    accelerator.prepare(torch.nn.Linear(2, 2))
    return accelerator


def steps(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_the_newest_are_kept(accelerator, tmp_path):
    for step in (5, 10, 15, 20):
        save_checkpoint(accelerator, tmp_path, step, keep=2)
    assert steps(tmp_path) == ["step-15", "step-20"]
    latest = find_checkpoint(tmp_path, "latest")
    assert latest == tmp_path / "step-20"
    assert read_step(latest) == 20
    assert find_checkpoint(tmp_path, "step-15") == find_checkpoint(tmp_path, "15")


def test_a_torn_checkpoint_is_passed_over(accelerator, tmp_path):
    save_checkpoint(accelerator, tmp_path, 1, keep=3)
    save_checkpoint(accelerator, tmp_path, 2, keep=3)
    weights = tmp_path / "step-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (tmp_path / "step-3").mkdir()
    (tmp_path / ".step-4.tmp").mkdir()
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "step-1"
    assert torn_checkpoints(tmp_path, 1) == [2, 3, 4]
    assert torn_checkpoints(tmp_path, 3) == [4]
    with pytest.raises(ValueError, match="step-2 is not whole"):
        find_checkpoint(tmp_path, "step-2")


def test_a_torn_checkpoint_is_not_counted_among_the_kept(accelerator, tmp_path):
    save_checkpoint(accelerator, tmp_path, 1, keep=2)
    save_checkpoint(accelerator, tmp_path, 2, keep=2)
    (tmp_path / "step-2" / "manifest.json").unlink()
    save_checkpoint(accelerator, tmp_path, 3, keep=2)
    assert steps(tmp_path) == ["step-1", "step-2", "step-3"]


def test_a_failing_write_leaves_the_older_one(accelerator, tmp_path, monkeypatch):
    save_checkpoint(accelerator, tmp_path, 1, keep=1)

    def fail(folder):
        raise OSError("disk full")

    monkeypatch.setattr(accelerator, "save_state", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(accelerator, tmp_path, 2, keep=1)
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "step-1"


def test_a_checkpoint_is_never_left_half_removed(accelerator, tmp_path, monkeypatch):
    save_checkpoint(accelerator, tmp_path, 5, keep=1)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda folder, **how: how or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_checkpoint(accelerator, tmp_path, 10, keep=1)
    assert steps(tmp_path) == [".step-5.tmp", "step-10"]
    drop_checkpoints_after(tmp_path, 10)
    assert steps(tmp_path) == ["step-10"]


def test_what_else_fails_is_not_the_disk_s(accelerator, tmp_path, monkeypatch):
    def wait():
        raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(accelerator, "wait_for_everyone", wait)
    with pytest.raises(RuntimeError, match="Connection reset"):
        save_checkpoint(accelerator, tmp_path, 5, keep=2)
    assert steps(tmp_path) == []


def test_a_checkpoint_that_is_linked_to(accelerator, tmp_path):
    save_checkpoint(accelerator, tmp_path, 1, keep=1)
    (tmp_path / "step-1").rename(tmp_path / "elsewhere")
    (tmp_path / "step-1").symlink_to(tmp_path / "elsewhere")
    save_checkpoint(accelerator, tmp_path, 2, keep=1)
    assert steps(tmp_path) == ["elsewhere", "step-2"]
    assert (tmp_path / "elsewhere" / "manifest.json").is_file()


def test_a_step_has_one_name(accelerator, tmp_path):
    save_checkpoint(accelerator, tmp_path, 9, keep=1)
    (tmp_path / "step-0010").mkdir()
    assert find_checkpoint(tmp_path, "latest") == tmp_path / "step-9"


def test_the_manifest_lists_every_file(accelerator, tmp_path):
    save_checkpoint(accelerator, tmp_path, 1, keep=1)
    sizes = json.loads((tmp_path / "step-1" / "manifest.json").read_text())["sizes"]
    assert set(sizes) | {"manifest.json"} == set(steps(tmp_path / "step-1"))


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("latest", "there is no whole checkpoint in"),
        ("step-7", "there is no checkpoint step-7 in .*; found: none"),
        ("newest", "--resume takes 'latest' or 'step-N', got 'newest'"),
        ("../../etc", "--resume takes 'latest' or 'step-N'"),
    ],
)
def test_a_checkpoint_that_is_not_there(tmp_path, which, message):
    with pytest.raises(ValueError, match=message):
        find_checkpoint(tmp_path, which)
