"""Runs that an older version trained stay usable: `tests/saved_runs` holds one of each task.

They were trained for four steps by version 0.1.0 before the task `recognition` was renamed to
`classification`, and scored by it. Never make them anew: they stand for the runs that users have.
"""

import json
import shutil
from pathlib import Path

import pytest

from disentangle import compare, evaluate, train, traverse
from disentangle.config.parse import parse_run
from disentangle.models import load_model
from disentangle.runs.metrics_log import read_lines

SAVED = Path(__file__).parent.parent / "saved_runs"
METRIC = {"gan": "activeness", "vae": "mig", "recognition": "accuracy"}
DRAWS = {"gan": ["--activeness.latents", "20"], "vae": ["--points", "200", "--test_points", "100"]}
TASK = {"gan": "gan", "vae": "vae", "recognition": "classification"}

pytestmark = pytest.mark.parametrize("name", sorted(METRIC))


@pytest.fixture
def folder(name, tmp_path, monkeypatch):
    """A copy of a saved run, in the current folder and under the name that its config has."""
    shutil.copytree(SAVED / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return Path(name)


def test_a_saved_run_is_resumed(name, folder):
    options = ["--config", str(folder / "config.yaml"), "--training.steps", "6"]
    assert train.main([*options, "--resume"]) == 0
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert parse_run(["--config", str(folder / "config.yaml")])[0].task == TASK[name]


def test_a_saved_run_is_scored_as_before(name, folder):
    before = json.loads((folder / "scores.json").read_text())["scores"][METRIC[name]]
    (folder / "scores.json").unlink()
    assert evaluate.main([str(folder), "--metrics", METRIC[name], *DRAWS.get(name, [])]) == 0
    after = json.loads((folder / "scores.json").read_text())["scores"][METRIC[name]]
    assert after["score"] == pytest.approx(before["score"], rel=1e-4)
    assert after["protocol"] == before["protocol"]


def test_saved_scores_are_compared(name, folder, capsys):
    assert compare.main([str(folder)]) == 0
    assert METRIC[name] in capsys.readouterr().out


def test_saved_models_load_and_are_drawn(name, folder):
    for model in folder.glob("*/config.json"):
        load_model(model.parent)
    if name != "recognition":
        assert traverse.main([str(folder), "--samples", "1"]) == 0
        assert list((folder / "traversals").iterdir())


def test_the_former_names_are_options_still(name, folder):
    options = ["--config", str(folder / "config.yaml"), "--task", name]
    assert parse_run(options)[0].task == TASK[name]
    if name == "recognition":
        assert evaluate.main([str(folder), "--metrics", name]) == 0
