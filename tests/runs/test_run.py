import json
import shutil
from pathlib import Path

import pytest

from disentangle.models import SubspaceVAE
from disentangle.runs import run as module
from disentangle.runs.run import Run, open_runs
from disentangle.runs.scores_file import ScoresFile

SAVED = Path(__file__).parent.parent / "saved_runs"


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(SAVED / "vae", tmp_path / "vae")


def test_a_run_has_everything_in_its_folder(folder):
    run = Run.open(folder)
    assert run.name == str(folder)
    assert run.raw_config["task"] == run.config.task == "vae"
    assert not run.classifies
    assert run.config.training.steps == run.step == run.metrics[-1]["step"] == 4
    written = json.loads((folder / "scores.json").read_text())["scores"]
    assert {name: score.score for name, score in run.scores.items()} == {
        name: entry["score"] for name, entry in written.items()
    }
    assert isinstance(run.generator, SubspaceVAE)
    run.check_trained()
    run.check_evaluated()


def test_files_are_read_when_needed_and_once(folder, monkeypatch):
    calls = []
    for name in ("parse_run", "read_lines", "read_scores", "load_model"):
        read = getattr(module, name)
        monkeypatch.setattr(module, name, lambda x, n=name, r=read: calls.append(n) or r(x))
    run = Run.open(folder)
    assert not calls
    for _ in range(2):
        assert all([run.config, run.metrics, run.scores, run.step, run.model])
    assert sorted(calls) == ["load_model", "parse_run", "read_lines", "read_scores"]


def test_a_run_that_has_only_begun(folder):
    for name in ("metrics.jsonl", "scores.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "model")
    run = Run.open(folder)
    assert (run.metrics, run.scores, run.step) == ([], {}, None)
    assert run.scores_file == ScoresFile()
    with pytest.raises(ValueError, match=r"has no metrics\.jsonl: it has not been trained"):
        run.check_trained()
    with pytest.raises(ValueError, match=r"has no scores\.json: run `disentangle evaluate` first"):
        run.check_evaluated()
    with pytest.raises(FileNotFoundError):
        _ = run.model


def test_a_classifier_is_no_generator():
    run = Run.open(SAVED / "recognition")
    assert run.classifies
    assert run.raw_config["task"] == run.config.task == "classification"
    assert run.model.config.classes == 10
    with pytest.raises(ValueError, match="of the task classification: it has no generator"):
        _ = run.generator


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        Run.open(tmp_path / "none")
    with pytest.raises(ValueError, match=r"is not a run folder: it holds no config\.yaml"):
        Run.open(tmp_path)


def test_a_run_that_is_named_twice_is_opened_once(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    runs = open_runs(["vae", "vae/", f"{folder}/../vae", SAVED / "gan"])
    assert [run.folder.path.resolve() for run in runs] == [folder.resolve(), SAVED / "gan"]
