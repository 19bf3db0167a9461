"""Runs with several starts: which is kept, and how they end, go on and fail."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file

from disentangle.config.parse import parse_run
from disentangle.train import main
from disentangle.training import starts
from disentangle.training.starts import Starts, final_loss
from disentangle.training.trainer import Trainer

SECOND = 673228719  # the seed of the second start of seed 0
OPTIONS = [
    *("--task", "vae", "--model.name", "subspace_vae", "--data.name", "sprites"),
    *("--model.image_size", "32", "--model.base_channels", "4", "--model.hidden_dim", "32"),
    *("--training.steps", "6", "--training.batch_size", "8", "--training.log_every", "2"),
    *("--training.checkpoint_every", "3", "--training.starts", "2"),
]


def to(folder, *more):
    return [*OPTIONS, "--output", str(folder), *more]


def train_start(folder, number, *more):
    """Train a start of the run in a folder, in this process."""
    seed = ["--seed", str((0, SECOND)[number - 1]), "--training.starts", "1"]
    assert main(to(folder / "starts" / str(number), *seed, *more)) == 0


def begin(folder):
    """Make the folder of a run of which no start has begun."""
    folder.mkdir()
    (folder / "config.yaml").write_text(parse_run(to(folder))[0].dump())


def weights(folder):
    return load_file(folder / "model" / "diffusion_pytorch_model.safetensors")


def losses(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines}


def record(folder):
    return json.loads((folder / "starts.json").read_text())


def config(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two starts, in processes of their own."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [sys.executable, "-m", "disentangle.train", *to(folder)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return folder, lines


@pytest.fixture
def copied(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


def test_the_start_with_the_lowest_loss_is_kept(trained, tmp_path):
    folder, printed = trained
    alone = {}
    for seed in (0, SECOND):
        path = tmp_path / str(seed)
        more = ["--seed", str(seed), "--training.starts", "1"]
        run, _ = parse_run(to(path, *more))
        assert Trainer(run).train() is None
        alone[seed] = path
    expected = {seed: losses(path)[6] for seed, path in alone.items()}
    kept = min(expected, key=expected.get)
    assert record(folder) == {
        "seed": 0,
        "kept": kept,
        "losses": {str(seed): pytest.approx(loss, rel=1e-6) for seed, loss in expected.items()},
    }
    for name, tensor in weights(folder).items():
        assert torch.allclose(tensor, weights(alone[kept])[name], atol=1e-6), name
    number = list(expected).index(kept) + 1
    assert f"start {number} (seed {kept}): final loss {expected[kept]:.6g}, kept\n" in printed
    assert printed.count("kept") == 1


def test_the_folder_is_that_of_the_best_with_the_options_of_the_run(trained):
    folder, _ = trained
    names = {entry.name for entry in folder.iterdir()}
    own = {"config.yaml", "metrics.jsonl", "model", "checkpoints", "samples", "logs"}
    assert names == own | {"starts.json"}
    expected = parse_run(to(folder, "--seed", str(record(folder)["kept"])))[0]
    assert parse_run(["--config", str(folder / "config.yaml")])[0] == expected
    assert sorted(entry.name for entry in (folder / "checkpoints").iterdir()) == [
        "step-3",
        "step-6",
    ]


@pytest.mark.parametrize("seed", ["the run's", "the kept one's"])
def test_a_run_is_trained_longer_from_the_best_start(copied, tmp_path, seed, capsys):
    kept = record(copied)["kept"]
    longer = ["--training.steps", "8", "--seed", "0" if seed == "the run's" else str(kept)]
    assert main(to(copied, *longer, "--resume", "step-6")) == 0
    assert capsys.readouterr().out == ""
    alone = tmp_path / "alone"
    assert main(to(alone, *longer[:2], "--seed", str(kept), "--training.starts", "1")) == 0
    assert losses(copied)[8] == pytest.approx(losses(alone)[8], rel=1e-6)
    assert config(copied)["seed"] == kept
    assert config(copied)["training"]["starts"] == 2


def test_finished_starts_are_kept_and_others_continue(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    begin(folder)
    train_start(folder, 1)
    train_start(folder, 2, "--training.steps", "3")
    capsys.readouterr()
    assert main(to(folder, "--resume")) == 0
    assert f"training starts of the seeds {SECOND}, 1 at a time\n" in capsys.readouterr().out
    assert record(folder)["losses"] == {
        seed: pytest.approx(loss, rel=1e-6) for seed, loss in record(trained[0])["losses"].items()
    }
    assert not (folder / "starts").exists()


def test_a_choice_that_was_cut_short_is_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    begin(folder)
    for number in (1, 2):
        train_start(folder, number)
    for where in ("replace_text", "_copy"):
        run, _ = parse_run(to(folder, "--resume"))
        with monkeypatch.context() as patch:
            patch.setattr(starts, where, lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                Starts(run, resuming=True, overwrite=False).train(main)
        assert config(folder)["seed"] == 0
    (folder / ".starts.tmp" / "1").mkdir(parents=True)
    assert main(to(folder, "--resume")) == 0
    kept = record(folder)["kept"]
    assert config(folder)["seed"] == kept
    assert {entry.name for entry in folder.iterdir()}.isdisjoint({"starts", ".starts.tmp"})


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM],  # of a terminal; of a cluster, to all processes
)
def test_a_signal_stops_every_start_with_a_checkpoint(tmp_path, number):
    folder = tmp_path / "run"
    process = start_long(folder)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "stopped before the best start was chosen; continue with --resume" in errors
    assert "Traceback" not in errors
    for start in (folder / "starts").iterdir():
        assert list((start / "checkpoints").glob("step-*/manifest.json"))
    assert not (folder / "starts.json").exists()


def test_starts_end_with_a_run_that_is_killed(tmp_path):
    folder = tmp_path / "run"
    process = start_long(folder)
    process.kill()
    process.communicate(timeout=60)  # they hold the standard error until they end
    for start in (folder / "starts").iterdir():
        assert list((start / "checkpoints").glob("step-*/manifest.json"))
        descriptor = os.open(start, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


def start_long(folder):
    """Begin a run of two starts that would take long; return once both train."""
    command = [sys.executable, "-m", "disentangle.train", *to(folder, "--training.steps", "100000")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    logs = [folder / "starts" / name / "metrics.jsonl" for name in "12"]
    while process.poll() is None and not all(log.exists() and log.read_text() for log in logs):
        time.sleep(0.05)
    return process


def test_an_error_in_a_start_ends_the_run_with_its_message(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(starts, "_count_cores", lambda: 1)  # the second start does not begin
    folder = tmp_path / "run"
    assert main(to(folder, "--training.steps", "50", "--optimizer.lr", "1e30")) == 1
    errors = capfd.readouterr().err
    assert "disentangle train: error: not finite, first at step 2: loss, " in errors
    assert "start 1 (seed 0) ended with status 1; continue with --resume" in errors
    assert [entry.name for entry in (folder / "starts").iterdir()] == ["1"]
    assert not (folder / "starts.json").exists()


def test_a_start_that_was_killed_is_named():
    start = starts.Start(2, parse_run(to("run", "--seed", "5"))[0])
    with pytest.raises(ChildProcessError, match=r"start 2 \(seed 5\) was killed by signal 9"):
        starts._check_end(start, -9)
    starts._check_end(start, 0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume", "step-3"], "--resume step-3 must wait until the best start is chosen"),
        (["--resume", "--training.starts", "3"], "training.starts is 2 there and 3 here"),
        (["--resume", "--training.starts", "1"], "training.starts is 2 there and 1 here"),
        (["--resume", "--seed", "1"], "with other options: seed is 0 there and 1 here"),
        (["--resume", "--model.code_dim", "7"], "model.code_dim is 10 there and 7 here"),
        ([], "already holds a run"),
    ],
)
def test_starts_are_only_continued_as_they_were_begun(tmp_path, complaint, more, message):
    begin(tmp_path / "run")
    assert message in complaint(main, to(tmp_path / "run", *more))
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_run_of_one_start_gets_no_more(tmp_path, complaint):
    assert main(to(tmp_path / "run", "--training.starts", "1")) == 0
    message = complaint(main, to(tmp_path / "run", "--resume"))
    assert "training.starts is 1 there and 2 here" in message


def test_a_damaged_record(copied, complaint):
    (copied / "starts.json").write_text('{"kept": "me"}')
    message = complaint(main, to(copied, "--training.steps", "8", "--resume"))
    assert "starts.json must hold the seed of the start that was kept" in message


def test_a_run_is_replaced_with_its_starts(copied):
    shutil.copytree(copied / "model", copied / "starts" / "1" / "model")
    assert main(to(copied, "--training.starts", "1", "--training.steps", "2", "--overwrite")) == 0
    assert not (copied / "starts").exists()
    assert not (copied / "starts.json").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--training.starts", "0"], "training.starts must be positive, got 0"),
        (["--training.starts", "1000000000"], "training.starts must be at most 1000, got 1000000"),
        (["--model.code_dim", "0"], "code_dim must be at least 1, got 0"),
        (["--model.image_channels", "3"], "model.image_channels is 3, but the data set 'sprites'"),
        (["--resume"], "nothing to resume"),
    ],
)
def test_bad_input_gets_one_line_and_nothing_is_written(tmp_path, complaint, more, message):
    assert message in complaint(main, to(tmp_path / "run", *more))
    assert not list(tmp_path.iterdir())


def test_gans_and_classifiers_have_one_start(tiny_gan, complaint):
    message = complaint(main, [*tiny_gan, "--training.starts", "2"])
    assert "training.starts above 1 requires the task vae, got 2 with the task gan" in message
    digits = ["--task", "classification", "--model.name", "resnet", "--data.name", "digits"]
    digits += ["--model.image_size", "32", "--training.starts", "2", "--output", "run"]
    assert "got 2 with the task classification" in complaint(main, digits)


def test_several_processes_have_one_start(tmp_path, complaint, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = complaint(main, to(tmp_path / "run"))
    assert "training.starts must be 1 under accelerate launch with several processes" in message


def test_the_final_loss_is_that_of_the_last_eighth():
    lines = [{"step": step, "loss": float(step)} for step in range(100, 900, 100)]
    assert final_loss(lines, steps=800) == 800
    assert final_loss(lines, steps=700) == 750
    assert final_loss([{"step": 8, "loss": None}], steps=8) == torch.inf
