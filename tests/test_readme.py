"""What the README shows runs as it is printed."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from disentangle import compare, evaluate, explore, train, traverse
from disentangle.adapters import eigengan_port
from disentangle.config.arguments import parse_arguments
from disentangle.config.parse import parse_run
from disentangle.models import EigenGAN

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
SNIPPETS = [text for language, text in BLOCKS if language == "python"]
SHELL = "".join(text for language, text in BLOCKS if not language).replace("\\\n", " ")
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
    short = ["--training.steps", "2", "--training.batch_size", "4", "--training.starts", "1"]
    assert train.main([*config, *short]) == 0


@pytest.fixture
def port_checkpoint(quickstart):
    """The file of another project that a snippet reads, in the folder of `quickstart`."""
    model = EigenGAN(image_size=32, base_channels=2, noise_dim=4)
    theirs = {eigengan_port.translate(key): x for key, x in model.state_dict().items()}
    torch.save({"step": 500_000, "g": theirs, "g_ema": theirs}, "0500000.pt")


@pytest.mark.usefixtures("port_checkpoint")
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


@pytest.mark.parametrize("module", [evaluate, compare, explore, traverse])
def test_other_commands_parse(module):
    name = module.__name__.rpartition(".")[2]
    lines = re.findall(rf"^.*\bdisentangle[ .]{name} (.*)$", SHELL, flags=re.M)
    assert lines
    for line in lines:
        parse_arguments(module.build_parser(), shlex.split(line, comments=True))


def test_the_codes_of_the_snippet_can_be_scored(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (snippet,) = (text for text in SNIPPETS if "np.savez" in text)
    exec(compile(snippet, "README.md", "exec"), {})
    (command,) = (line for line in SHELL.splitlines() if "--codes" in line)
    assert evaluate.main(shlex.split(command)[2:]) == 0
    assert (tmp_path / "scored" / "scores.json").is_file()
    assert "mig" in capsys.readouterr().out


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
    assert evaluate.main(["runs/quickstart", "--points", "1000", *few]) == 0
