import os
import signal
import subprocess
import sys

import pytest

from disentangle import __version__
from disentangle.__main__ import main


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["disentangle", *arguments])
    main()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(monkeypatch, capsys, arguments):
    run(monkeypatch, *arguments)
    printed = capsys.readouterr().out
    plots = ("plot-conditioning", "plot-activeness")
    for command in ("data", "train", "evaluate", "compare", "traverse", *plots):
        assert f"  {command} " in printed


def test_version(monkeypatch, capsys):
    run(monkeypatch, "--version")
    assert capsys.readouterr().out == f"disentangle {__version__}\n"


def test_an_unknown_command(monkeypatch, capsys):
    with pytest.raises(SystemExit) as exited:
        run(monkeypatch, "trian")
    assert exited.value.code == 2
    expected = (
        "disentangle: error: no command 'trian'; choose one of: data, train, evaluate, "
        "compare, traverse, explore, plot-conditioning, plot-activeness, report\n"
    )
    assert capsys.readouterr().err == expected


def test_help_is_quick_because_it_imports_no_torch():
    code = (
        "import sys; sys.argv = ['disentangle', '--help']\n"
        "from disentangle.__main__ import main; main()\n"
        "assert not {'torch', 'diffusers', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_command_is_handed_its_arguments(monkeypatch, capsys):
    with pytest.raises(SystemExit) as exited:
        run(monkeypatch, "evaluate", "no/such/run")
    assert exited.value.code == 2
    assert capsys.readouterr().err == (
        "disentangle evaluate: error: there is no run folder no/such/run\n"
    )


def test_a_reader_that_reads_no_further():
    reader, writer = os.pipe()
    os.close(reader)
    help_command = [sys.executable, "-m", "disentangle", "--help"]
    done = subprocess.run(help_command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_what_is_printed_where_letters_are_lacking():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    help_command = [sys.executable, "-m", "disentangle", "--help"]
    printed = subprocess.run(help_command, env=environment, capture_output=True, check=True).stdout
    assert printed.startswith(rb"usage: disentangle COMMAND \u2026 ")


def test_an_interrupt_is_no_error_of_ours(monkeypatch, capsys):
    monkeypatch.setattr("disentangle.evaluate.main", lambda arguments: signal.raise_signal(2))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as exited:
        run(monkeypatch, "evaluate", "run")
    signal.signal(signal.SIGINT, before)
    assert exited.value.code == 130
    assert capsys.readouterr().err == ""
