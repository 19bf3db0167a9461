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
