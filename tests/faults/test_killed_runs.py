"""Runs that are killed, or whose disk fails: see `killed_runs.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_runs.py")
STRIDE = "13"  # between the writes at which a run is killed; 1 takes a quarter of an hour

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
]


def play(folder, scenario, *arguments):
    """Plays a scenario in a process of its own, which forks."""
    done = subprocess.run(
        [sys.executable, SCRIPT, scenario, folder, *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("task", ["gan", "vae", "classification"])
def test_a_run_killed_twenty_times_ends_as_if_it_never_had_been(tmp_path, task):
    play(tmp_path, "killed_at_random", task)


@pytest.mark.parametrize("task", ["gan", "vae"])
def test_so_does_a_run_on_two_processes(tmp_path, task):
    play(tmp_path, "both_killed_at_random", task)


@pytest.mark.parametrize("task", ["gan", "vae", "classification"])
def test_a_run_that_loses_a_worker_ends(tmp_path, task):
    play(tmp_path, "losing_a_worker", task, "2")


@pytest.mark.soak
@pytest.mark.parametrize("workers", ["1", "2", "3", "4"])
@pytest.mark.parametrize("task", ["gan", "vae", "classification"])
def test_so_it_does_twenty_times(tmp_path, task, workers):
    play(tmp_path, "losing_a_worker", task, workers, "20")


@pytest.mark.soak
@pytest.mark.parametrize("task", ["gan", "vae", "classification"])
def test_so_do_two_processes(tmp_path, task):
    play(tmp_path, "losing_a_worker", task, "2", "20", "2")


@pytest.mark.parametrize("how", ["renamed", "deleted"])
def test_a_run_that_loses_its_folder_ends(tmp_path, how):
    play(tmp_path, "losing_its_folder", how)


def test_a_run_killed_while_it_writes_keeps_a_whole_checkpoint(tmp_path):
    play(tmp_path, "killed_at_each_write", STRIDE)


def test_where_no_more_can_be_written_the_last_checkpoint_stays(tmp_path):
    play(tmp_path, "full_disk")


def may_mount(folder):
    command = ["mount", "-t", "tmpfs", "tmpfs", folder]
    if subprocess.run(command, capture_output=True).returncode:
        return False
    subprocess.run(["umount", folder], check=True)
    return True


def test_on_a_full_and_on_a_read_only_disk_too(tmp_path):
    if not may_mount(tmp_path):
        pytest.skip("a small disk can be made by root only")
    play(tmp_path, "small_disk")
