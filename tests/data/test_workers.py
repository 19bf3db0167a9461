"""How processes that decode images end."""

import os
import subprocess
import sys
import time

import pytest

ORPHAN = """
import multiprocessing, os, signal, time
from disentangle.data.workers import _begin

def work():
    while os.getppid() == parent:
        time.sleep(0.01)
    _begin(None, lifeline, held)
    time.sleep(100)

parent = os.getpid()
lifeline, held = multiprocessing.Pipe(duplex=False)
worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
print(worker.pid, flush=True)
os.kill(parent, signal.SIGKILL)
"""


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_worker_that_was_born_while_its_run_was_killed_ends():
    started = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    worker = int(started.stdout.readline())
    deadline = time.monotonic() + 60
    while is_there(worker):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started.stdout.close()
    assert started.wait() < 0
