"""What the README shows runs as it is printed."""

import re
import shlex
from pathlib import Path

import pytest

from disentangle import evaluate, train, traverse
from disentangle.commands import parse_arguments
from disentangle.parsing import parse_run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SHELL = "".join(re.findall(r"```\n(.*?)```", README, flags=re.DOTALL)).replace("\\\n", " ")
TRAINING = [
    line.partition("  #")[0]
    for line in SHELL.splitlines()
    if "disentangle.train" in line or line.startswith("disentangle train")
]


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    """A folder in which `runs/quickstart` was trained for a moment."""
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(ROOT / "configs" / "quickstart.yaml")]
    assert train.main([*config, "--training.steps", "2", "--training.batch_size", "4"]) == 0


@pytest.mark.usefixtures("quickstart")
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets(number, capsys):
    snippet = SNIPPETS[number]
    exec(compile(snippet, f"README.md, snippet {number}", "exec"), {})
    printed = re.findall(r"^print\(.*\)  # (.+)$", snippet, flags=re.M)
    assert [line for line in capsys.readouterr().out.splitlines() if line in printed] == printed


@pytest.mark.parametrize("line", TRAINING)
def test_training_commands_parse(line, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    words = shlex.split(line)
    arguments = words[words.index("--config") :]
    if "--help" not in arguments:
        parse_run(arguments)


def test_make_quickstart_gives_options_that_the_commands_have(monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    commands = re.findall(r"^\t\$\(BIN\)/disentangle (\w+) (.*)$", recipe, flags=re.M)
    assert [name for name, _ in commands] == ["train", "evaluate", "traverse"]
    parse_run(shlex.split(commands[0][1]))
    for module, (_, options) in zip((evaluate, traverse), commands[1:], strict=True):
        parse_arguments(module.build_parser(), shlex.split(options))


@pytest.mark.usefixtures("quickstart")
def test_the_quickstart_folder_can_be_scored_and_drawn():
    assert traverse.main(["runs/quickstart", "--samples", "2", "--range", "2.5"]) == 0
    few = ["--factor_vae_score.train_points", "10", "--factor_vae_score.test_points", "10"]
    assert evaluate.main(["runs/quickstart", "--mig.points", "100", *few]) == 0
