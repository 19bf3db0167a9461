"""Runs that an older version trained stay usable: `tests/saved_runs` holds one of each task.

They were trained for four steps by version 0.1.0 before the task `recognition` was renamed to
`classification`, and scored by it. Never make them anew: they stand for the runs that users have.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from disentangle import compare, evaluate, train, traverse
from disentangle.config.parse import parse_run
from disentangle.models import EigenGAN, load_model
from disentangle.runs.metrics_log import read_lines
from disentangle.training.trainer import Trainer

SAVED = Path(__file__).parent.parent / "saved_runs"
METRIC = {"gan": "activeness", "vae": "mig", "recognition": "accuracy"}
DRAWS = {"gan": ["--activeness.latents", "20"], "vae": ["--points", "200", "--test_points", "100"]}
TASK = {"gan": "gan", "vae": "vae", "recognition": "classification"}

each_run = pytest.mark.parametrize("name", sorted(METRIC))
WEIGHTS = "diffusion_pytorch_model.safetensors"
LAST = "to_image.weight"


@pytest.fixture
def folder(name, tmp_path, monkeypatch):
    """A copy of a saved run, in the current folder and under the name that its config has."""
    shutil.copytree(SAVED / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return Path(name)


@each_run
def test_a_saved_run_is_resumed(name, folder):
    options = ["--config", str(folder / "config.yaml"), "--training.steps", "6"]
    assert train.main([*options, "--resume"]) == 0
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert parse_run(["--config", str(folder / "config.yaml")])[0].task == TASK[name]


@each_run
def test_a_saved_run_is_scored_as_before(name, folder):
    before = json.loads((folder / "scores.json").read_text())["scores"][METRIC[name]]
    (folder / "scores.json").unlink()
    assert evaluate.main([str(folder), "--metrics", METRIC[name], *DRAWS.get(name, [])]) == 0
    after = json.loads((folder / "scores.json").read_text())["scores"][METRIC[name]]
    assert after["score"] == pytest.approx(before["score"], rel=1e-4)
    assert after["protocol"] == before["protocol"]


@each_run
def test_saved_scores_are_compared(name, folder, capsys):
    assert compare.main([str(folder)]) == 0
    assert METRIC[name] in capsys.readouterr().out


@each_run
def test_saved_models_load_and_are_drawn(name, folder):
    for model in folder.glob("*/config.json"):
        load_model(model.parent)
    if name != "recognition":
        assert traverse.main([str(folder), "--samples", "1"]) == 0
        assert list((folder / "traversals").iterdir())


@each_run
def test_the_former_names_are_options_still(name, folder):
    options = ["--config", str(folder / "config.yaml"), "--task", name]
    assert parse_run(options)[0].task == TASK[name]
    if name == "recognition":
        assert evaluate.main([str(folder), "--metrics", name]) == 0


def draw_with_former_layer(model, weights, z):
    """Images whose last layer is the transposed convolution that version 0.1.0 had."""
    features = []
    handle = model.to_image.register_forward_pre_hook(lambda _, inputs: features.extend(inputs))
    model.decode(z)
    handle.remove()
    last = (weights[LAST], weights["to_image.bias"])
    return functional.conv_transpose2d(features[0], *last, padding=3).tanh()


READERS = {
    "load_model": load_model,
    "from_pretrained": EigenGAN.from_pretrained,
    "whole": lambda folder: EigenGAN.from_pretrained(folder, low_cpu_mem_usage=False),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("part", ["model", "ema"])
@torch.no_grad()
def test_an_eigengan_of_0_1_0_draws_the_same_images(read, part, tmp_path):
    folder = SAVED / "gan" / part
    weights = load_file(folder / WEIGHTS)
    model = read(folder)
    assert weights[LAST].shape == (1, 3, 7, 7)
    assert torch.equal(model.to_image.weight, weights[LAST].transpose(0, 1).flip(2, 3))
    z = model.sample_latents(4)
    images = model.decode(z)
    assert images.std() > 0.01
    torch.testing.assert_close(images, draw_with_former_layer(model, weights, z))
    model.save_pretrained(tmp_path)  # in the format of today, which is read as it is
    assert torch.equal(load_model(tmp_path).decode(z), images)
    assert torch.equal(read(tmp_path).decode(z), images)


@pytest.mark.parametrize("name", ["gan"])
def test_an_eigengan_of_0_1_0_is_resumed_where_it_was(name, folder):
    checkpoint = folder / "checkpoints" / "step-4"
    options = ["--config", str(folder / "config.yaml"), "--training.steps", "6"]
    trainer = Trainer(parse_run(options)[0], resume="latest")
    learner = trainer.task.learner

    def expect(tensor):
        return tensor.transpose(0, 1).flip(2, 3)

    weight = learner.raw.to_image.weight
    assert torch.equal(weight, expect(load_file(checkpoint / "model.safetensors")[LAST]))
    average = torch.load(checkpoint / "custom_checkpoint_0.pkl")[f"module.{LAST}"]
    assert torch.equal(trainer.average.module.to_image.weight, expect(average))
    saved = torch.load(checkpoint / "optimizer.bin")["state"].values()
    (saved,) = (state for state in saved if state["exp_avg"].shape == (1, 3, 7, 7))
    state = learner.optimizer.state[weight]
    for moment in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(state[moment], expect(saved[moment]))
        assert state[moment].any()
        assert state[moment].stride() == weight.stride()
    assert torch.equal(state["step"], saved["step"])
    assert "_weights_format" not in json.loads((checkpoint / "manifest.json").read_text())


@pytest.mark.parametrize("name", ["gan"])
def test_a_resumed_run_of_0_1_0_is_written_in_the_new_format(name, folder):
    options = ["--config", str(folder / "config.yaml"), "--training.steps"]
    assert train.main([*options, "6", "--resume"]) == 0
    weights = load_model(folder / "model").state_dict()
    assert torch.equal(load_file(folder / "model" / WEIGHTS)[LAST], weights[LAST])
    trainer = Trainer(parse_run([*options, "8"])[0], resume="latest")
    assert torch.equal(trainer.task.learner.raw.to_image.weight, weights[LAST])
