import errno

import pytest

from disentangle.runs.atomic import replace_files, replace_text
from disentangle.runs.lock import holding
from disentangle.runs.run import Run
from disentangle.runs.run_folder import RunFolder

CONFIG = "{task: vae, model: {}, data: {}, output: run}"


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "notes.txt").write_text("mine")
    return RunFolder(folder)


def test_a_fresh_or_empty_folder_may_be_claimed(tmp_path):
    RunFolder(tmp_path / "new").check_claim(resume=False, overwrite=False)
    RunFolder(tmp_path).check_claim(resume=False, overwrite=False)


def test_a_run_may_be_claimed_only_when_asked_for(run):
    with pytest.raises(ValueError, match=r"already holds a run: add --resume .* --overwrite"):
        run.check_claim(resume=False, overwrite=False)
    run.check_claim(resume=True, overwrite=False)
    run.check_claim(resume=False, overwrite=True)
    run.check_claim(resume=True, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_not_a_run_is_never_claimed(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="is not a run folder: choose another --output"):
        RunFolder(tmp_path).check_claim(resume=False, overwrite=overwrite)
    with pytest.raises(ValueError, match="is not a run folder"):
        RunFolder(tmp_path / "thesis.tex").check_claim(resume=False, overwrite=overwrite)
    with pytest.raises(ValueError, match="nothing to resume"):
        RunFolder(tmp_path).check_claim(resume=True, overwrite=False)


@pytest.mark.parametrize("content", ["hydra: mine", "[1]", "", "{", "\x00", "task: vae"])
def test_somebody_elses_config_makes_no_run(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    for flags in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
        with pytest.raises(ValueError, match="is not a run folder"):
            RunFolder(tmp_path).check_claim(**flags)
    with pytest.raises(ValueError, match=r"its config\.yaml is not that of a run"):
        Run.open(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is not a writable folder"):
        RunFolder(tmp_path / "file" / "run").check_claim(resume=False, overwrite=False)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="exists and is not a run folder"):
        RunFolder(tmp_path / "dangling").check_claim(resume=False, overwrite=False)


def test_clearing_leaves_what_is_not_the_runs(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (run.path / "samples").symlink_to(tmp_path / "elsewhere")
    run.clear()
    assert {entry.name for entry in run.path.iterdir()} == {"config.yaml", "notes.txt"}
    assert (tmp_path / "elsewhere").is_dir()


def test_a_start_that_was_killed_leaves_an_empty_folder(tmp_path):
    (tmp_path / ".config.yaml.tmp").write_text("task: va")
    RunFolder(tmp_path).check_claim(resume=False, overwrite=False)


def test_what_is_being_cleared_is_still_a_run(run, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run.clear()
    run.check_claim(resume=False, overwrite=True)


def test_a_folder_that_is_reached_through_one_that_is_not_there(run):
    """Once it were made, the path would lead to a run."""
    with pytest.raises(ValueError, match="run already holds a run"):
        RunFolder(run.path / ".." / "none" / ".." / "run").check_claim(
            resume=False, overwrite=False
        )


@pytest.mark.parametrize("name", ["model", "ema", "best", "discriminator"])
def test_models_are_not_replaced_elsewhere(run, tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (run.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{name} must not be a link"):
        run.check_claim(resume=True, overwrite=False)


def test_text_is_not_written_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".config.yaml.tmp").symlink_to(tmp_path / "mine")
    replace_text(tmp_path / "config.yaml", "theirs")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "config.yaml").read_text() == "theirs"


def test_opening(run, tmp_path):
    assert Run.open(run.path).folder.config == run.config
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is not a run folder: it holds no config\.yaml"):
        Run.open(tmp_path)


def test_files_are_replaced_whole(tmp_path):
    target = tmp_path / "model"
    replace_files(target, lambda folder: (folder / "a").write_text("old"))

    def fail(folder):
        (folder / "a").write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_files(target, fail)
    assert (target / "a").read_text() == "old"
    replace_files(target, lambda folder: (folder / "a").write_text("new"))
    assert (target / "a").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_which_another_process_trains(run, overwrite, monkeypatch):
    monkeypatch.setattr("disentangle.runs.run_folder.PATIENCE", 0.1)
    with holding(run.path):
        with pytest.raises(BlockingIOError, match=r"another process trains in .*run: wait"):
            run.check_claim(resume=not overwrite, overwrite=overwrite)
        with pytest.raises(BlockingIOError), holding(run.path):
            pass
    with holding(run.path, alone=False):  # several processes of one run look at it at once
        run.check_claim(resume=not overwrite, overwrite=overwrite)
    with holding(run.path):
        pass


def test_a_file_system_without_locks(run, monkeypatch):
    def refuse(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with holding(run.path):
        run.check_claim(resume=True, overwrite=False)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_held_folder_that_is_renamed(run, tmp_path, replaced):
    with holding(run.path) as check_place:
        check_place()
        run.path.rename(tmp_path / "elsewhere")
        if replaced:
            run.path.mkdir()
        with pytest.raises(FileNotFoundError, match=r"the run folder .*run was renamed or deleted"):
            check_place()
