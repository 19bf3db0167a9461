import io
import sys
import threading

import pytest

from disentangle.train import main
from disentangle.training.terminal import leave_io_errors_to_main_thread, outlive_terminal


class Gone(io.StringIO):
    """What a program has that was started from a terminal which is no longer there."""

    def write(self, text):
        raise OSError(5, "Input/output error")

    def flush(self):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("stream", [Gone(), None])
def test_a_run_outlives_its_terminal(tiny_vae, tmp_path, monkeypatch, stream):
    monkeypatch.setattr("sys.stderr", stream)
    assert main(tiny_vae) == 0
    assert sys.stderr is stream
    assert (tmp_path / "run" / "checkpoints" / "step-6").is_dir()


def test_what_can_be_written_is(capsys):
    with outlive_terminal():
        print("one line", file=sys.stderr, flush=True)
    assert capsys.readouterr().err == "one line\n"


@pytest.mark.parametrize(
    ("error", "kept"), [(OSError(28, "full"), []), (KeyError("x"), [KeyError])]
)
def test_threads_that_cannot_write_print_nothing(monkeypatch, error, kept):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda given: reported.append(given.exc_type))

    def fail():
        raise error

    with leave_io_errors_to_main_thread():
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert reported == kept
