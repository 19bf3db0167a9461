"""Whole runs: what they write, that they resume bit for bit, and how they end."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from disentangle.config.parse import parse_run
from disentangle.config.run import CONSTRAINTS
from disentangle.models import load_model
from disentangle.models.layers import SubspaceLayer
from disentangle.runs.metrics_log import read_lines
from disentangle.train import main
from disentangle.training import trainer as trainer_module
from disentangle.training.accelerator import build_accelerator
from disentangle.training.logs import MetricsLog
from disentangle.training.trainer import Trainer
from tests.helpers.launching import ON_CPU, on_two_processes

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(params=["tiny_vae", "tiny_gan"])
def options(request):
    return request.getfixturevalue(request.param)


def train(options):
    run, extra = parse_run(options)
    trainer = Trainer(run, resume=extra.resume, overwrite=extra.overwrite)
    assert trainer.train() is None
    return run.output


def weights(folder):
    return {file.parent.name: load_file(file) for file in sorted(folder.glob(f"*/{WEIGHTS}"))}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].keys() == b[name].keys()
        for key in a[name]:
            assert torch.equal(a[name][key], b[name][key]), (name, key)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_a_run_writes(options):
    folder = train(options)
    names = {entry.name for entry in folder.iterdir()}
    gan = "gan" in options
    expected = {"config.yaml", "metrics.jsonl", "model", "checkpoints", "samples", "logs"}
    assert names == expected | ({"discriminator", "ema"} if gan else set())
    # Every second step, and whenever there is a checkpoint.
    assert [line["step"] for line in lines(folder)] == [2, 3, 4, 6]
    layer = "blocks.0.subspace.U" if gan else "decoder.subspaces.0.U"
    for quantity in ("weight", "gradient"):
        measured = [f"conditioning/{layer}/{quantity}/condition" in line for line in lines(folder)]
        assert measured == [True, False, True, True]
    assert sorted(entry.name for entry in (folder / "checkpoints").iterdir()) == [
        "step-3",
        "step-6",
    ]
    assert [entry.name for entry in (folder / "samples").iterdir()] == ["step-0000006.png"]
    assert list((folder / "logs").glob("events.*"))
    assert parse_run(["--config", str(folder / "config.yaml")])[0] == parse_run(options)[0]


def test_conditioning_can_be_measured_at_steps_of_its_own(options):
    gan = "gan" in options
    folder = train([*options, "--training.conditioning_every", "1", "--training.log_every", "3"])
    name = f"conditioning/{'blocks.0.subspace.U' if gan else 'decoder.subspaces.0.U'}"
    conditions = {line["step"]: line[f"{name}/weight/condition"] for line in lines(folder)}
    assert list(conditions) == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines(folder) if "images_per_second" in line] == [3, 6]
    # The first step starts from an orthonormal basis.
    assert conditions[1] == pytest.approx(1, abs=1e-5)
    assert conditions[6] > conditions[1]
    assert all(line[f"{name}/gradient/effective_rank"] > 1 for line in lines(folder))


def test_measuring_changes_nothing_and_can_be_left_out(options, tmp_path):
    runs = {}
    for every in ("0", "1"):
        more = ["--training.conditioning_every", every, "--output", str(tmp_path / every)]
        runs[every] = train([*options, *more])
    assert_same(weights(runs["0"]), weights(runs["1"]))
    assert not any(name.startswith("conditioning") for line in lines(runs["0"]) for name in line)


def test_numbers_that_json_lacks_are_null(tmp_path):
    accelerator = Accelerator(cpu=True)
    log = MetricsLog(accelerator, tmp_path / "metrics.jsonl", first=0, last=2, batch_size=1)
    log.note(1, {"conditioning/U/gradient/condition": torch.tensor(torch.inf)})
    log.add(1, {"loss": torch.tensor(1.0)})
    log.note(2, {"conditioning/U/gradient/condition": torch.tensor(4.0)})
    log.add(2, {"loss": torch.tensor(2.0)})
    log.write(2)
    log.close()
    first, second = read_lines(tmp_path / "metrics.jsonl")
    assert first == {"step": 1, "conditioning/U/gradient/condition": None}
    assert second.pop("images_per_second") > 0
    assert second == {"step": 2, "loss": 1.5, "conditioning/U/gradient/condition": 4.0}


def test_torn_lines_are_passed_over(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 2.0}\n[3]\n{"loss": 1.0}\n{"step": 2, "lo')
    assert read_lines(file) == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize(
    "techniques",
    ["[nog, olr]", "[nog, olr, ol, ow]", "[nog, ol, sn]", "[nou, olr]", "[nou, ow_kernel]"],
)
def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(options, tmp_path, techniques):
    options = [*options, "--orthogonality", techniques]
    whole = train([*options, "--output", str(tmp_path / "whole")])
    cut = [*options, "--output", str(tmp_path / "cut")]
    train([*cut, "--training.steps", "3"])
    train([*cut, "--resume"])
    assert_same(weights(tmp_path / "cut"), weights(whole))
    timeless = [
        [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines(folder)]
        for folder in (tmp_path / "cut", whole)
    ]
    assert timeless[0] == timeless[1]


@pytest.fixture
def scalers(monkeypatch):
    """Has runs train in fp16 on a CPU, as Accelerate lets them on a GPU; the scaler of each run."""
    made = []

    def build_with_scaler(run, folder):
        accelerator = build_accelerator(run, folder)
        accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
        # Of the VAE it overflows at first, of the GAN it grows.
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
        made.append(accelerator.scaler)
        return accelerator

    monkeypatch.setattr(trainer_module, "build_accelerator", build_with_scaler)
    return made


@pytest.mark.parametrize("techniques", ["[]", "[nou, olr]"])
def test_a_gradient_scaler_goes_on_where_it_was(options, tmp_path, scalers, techniques):
    options = [*options, "--orthogonality", techniques]
    whole = train([*options, "--output", str(tmp_path / "whole")])
    cut = [*options, "--output", str(tmp_path / "cut")]
    train([*cut, "--training.steps", "3"])
    train([*cut, "--resume"])
    assert_same(weights(tmp_path / "cut"), weights(whole))
    first, before, after = (scaler.state_dict() for scaler in scalers)
    assert after == first
    assert before["scale"] != after["scale"]


def test_resuming_an_older_checkpoint_drops_what_came_after(options, complaint):
    folder = train(options)
    before = weights(folder)
    message = complaint(main, [*options, "--resume", "step-3"])
    assert "would drop the checkpoint step-6: add --overwrite" in message
    trainer = Trainer(parse_run(options)[0], resume="step-3", overwrite=True)
    trainer._open_folder()
    assert [entry.name for entry in (folder / "checkpoints").iterdir()] == ["step-3"]
    assert [line["step"] for line in lines(folder)] == [2, 3]
    train([*options, "--resume", "step-3"])
    assert [line["step"] for line in lines(folder)] == [2, 3, 4, 6]
    assert_same(weights(folder), before)


def test_another_seed_gives_other_weights(tiny_vae, tmp_path):
    a = train([*tiny_vae, "--output", str(tmp_path / "a")])
    b = train([*tiny_vae, "--output", str(tmp_path / "b"), "--seed", "1"])
    assert not torch.equal(
        weights(a)["model"]["decoder.subspaces.0.U"], weights(b)["model"]["decoder.subspaces.0.U"]
    )


def test_accumulated_parts_make_the_same_step(options, tmp_path):
    whole = weights(train([*options, "--output", str(tmp_path / "whole")]))
    parts = [*options, "--training.accumulation", "4", "--output", str(tmp_path / "parts")]
    accumulated = weights(train(parts))
    for name, tensor in whole["model"].items():
        assert torch.allclose(tensor, accumulated["model"][name], atol=1e-4), name


COMBINATIONS = [
    [*others, *constraint]
    for n in range(4)
    for others in itertools.combinations(("nog", "olr", "ol"), n)
    for constraint in ([], ["ow"], ["sn"])
]
COMBINATIONS += [["nou"], ["nou", "olr", "ol"], ["nou", "olr", "ow"], ["nou", "ol", "sn"]]
COMBINATIONS += [["ow_kernel"], ["nog", "olr", "ol", "ow_kernel"], ["nou", "ow_kernel"]]


@pytest.mark.parametrize("techniques", COMBINATIONS, ids=lambda names: "+".join(names) or "none")
def test_every_combination_of_techniques_trains(options, techniques):
    chosen = f"[{', '.join(techniques)}]"
    folder = train([*options, "--orthogonality", chosen, "--training.steps", "2"])
    assert all(torch.isfinite(tensor).all() for tensor in weights(folder)["model"].values())
    weight = CONSTRAINTS.get((techniques or [""])[-1], "free")
    for name in weights(folder):
        model = load_model(folder / name)
        if name == "discriminator":
            continue
        assert model.config.pre_svd_weight == weight
        # Both in the model and in its average.
        for layer in (module for module in model.modules() if isinstance(module, SubspaceLayer)):
            sigmas = torch.linalg.svdvals(layer.U)
            if weight.startswith("ortho"):
                assert torch.allclose(sigmas, torch.ones_like(sigmas), atol=1e-5)
            elif weight == "spectral":
                assert sigmas[0].item() == pytest.approx(1, abs=1e-2)


def test_the_scale_of_nog(options, tmp_path):
    options = [*options, "--orthogonality", "[nog]", "--training.steps", "2"]
    runs = {
        scale: weights(train([*options, "--nog_scale", scale, "--output", str(tmp_path / scale)]))
        for scale in ("unit", "gradient")
    }
    names = [name for name in runs["unit"]["model"] if name.endswith("U")]
    assert names
    for name in names:
        assert not torch.equal(runs["unit"]["model"][name], runs["gradient"]["model"][name])


def test_bfloat16(options):
    folder = train([*options, "--training.mixed_precision", "bf16", "--training.steps", "2"])
    assert all(tensor.dtype == torch.float32 for tensor in weights(folder)["model"].values())
    exact = train([*options, "--training.steps", "2", "--output", str(folder.parent / "exact")])
    for rough, fine in zip(lines(folder), lines(exact), strict=True):
        assert rough != fine
        for name in (name for name in fine if name.startswith("loss")):
            assert rough[name] == pytest.approx(fine[name], rel=0.05), name


@pytest.fixture
def hang_ups():
    """SIGHUP acts in the processes that are started, which under `nohup` it does not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_ups")
@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGTERM, 2), (signal.SIGHUP, 2)],
)
def test_a_signal_to_the_process_group_checkpoints_and_leaves(tiny_vae, tmp_path, number, workers):
    command = [sys.executable, "-m", "disentangle.train", *tiny_vae, "--training.steps", "100000"]
    command += ["--training.workers", str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.05)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = lines(tmp_path / "run")[-1]["step"]
    assert f"stopped at step {last}; continue with --resume" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "run" / "checkpoints" / f"step-{last}").is_dir()
    train([*tiny_vae, "--training.steps", str(last + 1), "--resume"])


def test_a_loss_that_is_not_finite_stops_the_run(tiny_vae, tmp_path, capsys):
    options = [*tiny_vae, "--training.steps", "50", "--optimizer.lr", "1e30"]
    assert main(options) == 1
    assert "error: not finite, first at step 2: loss, " in capsys.readouterr().err
    assert lines(tmp_path / "run")[-1]["step"] < 50


def test_an_existing_run_is_kept_unless_asked_otherwise(tiny_vae, complaint):
    folder = train(tiny_vae)
    (folder / "notes.txt").write_text("mine")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert "already holds a run" in complaint(main, tiny_vae)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    train([*tiny_vae, "--overwrite", "--training.steps", "2"])
    assert [line["step"] for line in lines(folder)] == [2]
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_checkpoint_of_another_architecture(tiny_vae, complaint):
    folder = train(tiny_vae)
    more = ["--training.steps", "8", "--resume", "--model.code_dim", "7"]
    message = complaint(main, [*tiny_vae, *more])
    assert "has another architecture: model.code_dim is 10 there and 7 here" in message
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved["model"]["code_dim"] == 10


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--training.steps", "6"],
            "is after step 6 of 6; train longer with",
        ),
        (["--training.ema_half_life", "9"], "an average of the weights is False there and True"),
        (["--orthogonality", "[nog]"], "olr in orthogonality is True there and False here"),
        (["--orthogonality", "[nog, olr, ow]"], "ow in orthogonality is False there and True here"),
    ],
)
def test_a_run_that_cannot_go_on(tiny_vae, complaint, more, message):
    train(tiny_vae)
    options = [*tiny_vae, "--training.steps", "8", *more, "--resume"]
    assert message in complaint(main, options)


def test_a_checkpoint_of_weights_that_are_not_finite(tiny_vae, complaint):
    file = train(tiny_vae) / "checkpoints" / "step-6" / "model.safetensors"
    broken = {name: x * torch.nan for name, x in load_file(file).items()}
    save_file(broken, file, {"format": "pt"})
    message = complaint(main, [*tiny_vae, "--training.steps", "8", "--resume"])
    assert f"cannot resume {file.parent}: " in message
    assert "of model is not finite after step 6" in message
    train([*tiny_vae, "--resume", "step-3", "--overwrite"])


def test_a_launcher_that_asks_for_other_parts(tiny_vae, complaint, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    message = complaint(main, tiny_vae)
    assert "asks for 4 accumulation steps and the run for 1: choose training.accum" in message


def test_what_a_resumed_run_does_otherwise_is_said(tiny_vae, tmp_path, capsys):
    more = ["--training.steps", "8", "--resume", "--overwrite"]
    train(tiny_vae)
    capsys.readouterr()
    train([*tiny_vae, *more])
    assert "other options" not in capsys.readouterr().out
    train([*tiny_vae, *more[:3], "--training.steps", "9", "--seed", "3", "--optimizer.lr", "0.5"])
    expected = "resuming with other options: optimizer.lr 0.0001 → 0.5, seed 0 → 3"
    assert expected in capsys.readouterr().out
    linear = [*tiny_vae, "--seed", "3", "--optimizer.schedule", "linear", "--resume"]
    train([*linear, "--training.steps", "10"])
    assert "training.steps 9 → 10" in capsys.readouterr().out  # the rate depends on it
    file = tmp_path / "run" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["training"]["log_every"] = "\x1b[2J\n" + "x" * 100
    file.write_text(yaml.safe_dump(config))
    train([*tiny_vae, *more[2:], "--training.steps", "11", "--seed", "3", "--optimizer.lr", "0.5"])
    expected = rf"training.log_every \x1b[2J\n{'x' * 34}… → 2"
    assert expected in capsys.readouterr().out


def test_a_torn_checkpoint_is_reported(tiny_vae, capsys):
    run = train(tiny_vae)
    (run / "checkpoints" / "step-6" / "manifest.json").unlink()
    assert main([*tiny_vae, "--resume"]) == 0
    assert "resuming from step-3; incomplete checkpoints: step-6" in capsys.readouterr().out
    assert json.loads((run / "checkpoints" / "step-6" / "manifest.json").read_text())["step"] == 6


def test_a_damaged_checkpoint(tiny_vae, complaint, tmp_path):
    damaged = train(tiny_vae) / "checkpoints" / "step-6" / "model.safetensors"
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    message = complaint(main, [*tiny_vae, "--training.steps", "8", "--resume"])
    assert "step-6 cannot be loaded" in message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume"], "nothing to resume"),
        (["--training.conditioning_every", "-1"], "conditioning_every must not be negative"),
        (["--model.base_channels", "0"], "base_channels must be at least 1, got 0"),
        (["--model.hidden_dim", "-1"], "hidden_dim must be at least 1, got -1"),
        (["--output", "/proc/version/run"], "/proc/version is not a writable folder"),
        (["--model.image_size", "48"], "image_size must be a power of two from 32, got 48"),
        (["--model.image_channels", "3"], "model.image_channels is 3, but the data set 'sprites'"),
        (["--training.batch_size", "1000000"], "but the data set has 737280 images only"),
        (["--training.accumulation", "3"], "must be a multiple of 1 processes × 3"),
        (["--training.log_every", "1" + "0" * 400], "training.log_every must have 64 bits"),
        (["--training.workers", "1000000000"], "workers must be at most 1024, got 1000000000"),
        (["--training.crop_padding", "33"], "must be at most model.image_size, 32, got 33"),
        (["--model.hidden_dim", "100000000000000"], "subspace_vae cannot be made: "),
        (["--model.code_dim", "1" + "0" * 400], "code_dim of subspace_vae must have 64 bits"),
        (["--objective.kind", "dip_1", "--training.batch_size", "1"], "must be at least 2, got 1"),
        (["--objective.kind", "factor", "--training.batch_size", "1"], "must be at least 2, got 1"),
        (["--pre_svd_parameters", "[decoder.U]"], "decoder.U"),
        (["--model.subspace_count", "9"], "subspace_count must be between 1 and"),
        (["--data.name", "dsprites", "--data.path", "no.npz"], "no.npz"),
        (["--data.name", "folder", "--data.path", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_gets_one_line_and_nothing_is_written(
    tiny_vae, tmp_path, complaint, more, message
):
    assert message in complaint(main, [*tiny_vae, *more])
    assert not list(tmp_path.iterdir())


def test_corrupt_images_are_named_or_counted(tiny_vae, tmp_path, capsys, complaint):
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for i in range(9):
        Image.new("L", (40, 40), i * 20).save(images / f"{i}.png")
    (images / "8.png").write_bytes((images / "8.png").read_bytes()[:60])
    options = [*tiny_vae, "--data.name", "folder", "--data.path", str(images)]
    message = complaint(main, options)
    assert "8.png" in message
    assert "--data.on_corrupt skip" in message
    assert not (tmp_path / "run").exists()
    (images / "notes.txt").touch()
    train([*options, "--data.on_corrupt", "skip", "--training.flip", "true"])
    (line,) = re.findall("^left out: .*$", capsys.readouterr().out, flags=re.MULTILINE)
    assert line.startswith("left out: 1 of 9 images, which cannot be read, such as")
    assert line.endswith("8.png; 1 unsupported file (1 .txt)")
    assert len(os.listdir(images)) == 10


def test_images_that_came_or_went_are_counted(tiny_vae, tmp_path, capsys):
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for i in range(9):
        Image.new("L", (40, 40), i * 20).save(images / f"{i}.png")
    options = [*tiny_vae, "--data.name", "folder", "--data.path", str(images)]
    train(options)
    (images / "3.png").unlink()
    train([*options, "--resume", "--training.steps", "7"])
    line = "resuming with other data: the data set had 9 images and has 8 now\n"
    assert capsys.readouterr().out == line
    (images / "2.png").rename(images / "20.png")
    train([*options, "--resume", "--training.steps", "8"])
    line = "resuming with other data: names or sizes of the data set's files have changed\n"
    assert capsys.readouterr().out == line


@pytest.mark.slow
def test_two_processes_train_as_one(options, tmp_path):
    """The joint batch, its order, latents, noise and R1 steps are those of one process."""
    alone = lines(train([*options, "--output", str(tmp_path / "alone")]))
    together = [*options, "--output", str(tmp_path / "together")]
    command = on_two_processes("disentangle.train", *together)
    subprocess.run(command, check=True, env=ON_CPU, capture_output=True)
    # Adam makes a whole step of a gradient that is rounding noise, so weights differ more than
    # losses do; `images_per_second` is no result.
    for one, two in zip(alone, lines(tmp_path / "together"), strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"images_per_second"}:
            if one[name] is None:  # the gradient of few images is singular
                assert two[name] is None, name
                continue
            # The smallest singular value differs by σmax / σmin times as much as the matrix.
            sensitive = name.startswith("conditioning") and name.endswith("condition")
            relative = 1e-3 * (one[name] ** 0.5 if sensitive else 1)
            assert two[name] == pytest.approx(one[name], rel=relative, abs=1e-5), name
