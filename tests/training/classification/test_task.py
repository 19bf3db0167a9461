import json
import re

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18

from disentangle import compare, evaluate, traverse
from disentangle import train as train_command
from disentangle.config.parse import parse_run
from disentangle.data import Digits, hold_out
from disentangle.evaluation.classify import classify
from disentangle.models import load_model
from disentangle.runs.metrics_log import read_lines
from disentangle.runs.run_folder import RunFolder
from disentangle.training.augmentation import mix
from disentangle.training.batches import Batch
from disentangle.training.trainer import Trainer


@pytest.fixture
def tiny(tmp_path):
    """Options of a classification run that trains for a moment, in `tmp_path / "run"`."""
    return [
        *("--task", "classification", "--model.name", "resnet", "--data.name", "digits"),
        *("--model.depth", "10", "--model.image_size", "8", "--model.image_channels", "1"),
        *("--model.base_channels", "4", "--model.meta_layer", "decorrelated_batch_norm"),
        *("--optimizer.kind", "sgd", "--optimizer.lr", "0.05", "--training.crop_padding", "1"),
        *("--training.steps", "6", "--training.batch_size", "16", "--training.log_every", "2"),
        *("--objective.validate_every", "2", "--training.checkpoint_every", "3"),
        *("--orthogonality", "[nog, olr]", "--output", str(tmp_path / "run")),
    ]


def train(options, *more):
    trainer = Trainer(parse_run([*options, *more])[0])
    trainer.train()
    return trainer


def weights_of(folder):
    return load_model(folder).state_dict()


def test_a_run_learns_the_digits(tiny):
    trainer = train(
        tiny, "--training.steps", "60", "--training.batch_size", "64", "--optimizer.lr", "0.1"
    )
    lines = read_lines(trainer.folder.metrics)
    assert lines[-1]["validation/top_1"] > 0.4  # of which 0.1 is chance
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[-1]["conditioning/bn1/covariance/condition"] > 1
    assert lines[-1]["conditioning/conv1.weight/gradient/condition"] > 1


def test_the_best_model_of_the_validation_is_kept(tiny):
    trainer = train(tiny)
    lines = read_lines(trainer.folder.metrics)
    scores = {line["step"]: line["validation/top_1"] for line in lines if "validation/loss" in line}
    assert list(scores) == [2, 4, 6]
    best = max(scores, key=lambda step: (scores[step], -step))
    folder = trainer.folder
    assert folder.read_step() == best
    held_out = hold_out(Digits(), 0.1)[1]
    logits = classify(load_model(folder.final), held_out, Accelerator(cpu=True), batch_size=50)
    right = (logits.argmax(1).numpy() == held_out.labels).mean()
    assert right == pytest.approx(scores[best])


def test_without_validation_the_last_model_counts(tiny):
    trainer = train(tiny, "--objective.validation", "0")
    assert len(trainer.task.data) == len(Digits())
    assert not (trainer.folder.path / "best").exists()
    assert trainer.folder.read_step() == 6
    assert not any("validation/top_1" in line for line in read_lines(trainer.folder.metrics))


def test_a_run_trains_on_nothing_that_is_held_out(tiny):
    task = Trainer(parse_run(tiny)[0]).task
    trained = {image.numpy().tobytes() for image in task.data}
    assert trained.isdisjoint(image.numpy().tobytes() for image in task.held_out)
    test = {image.numpy().tobytes() for image in Digits(split="test")}
    assert trained.isdisjoint(test)


def test_a_resumed_run_is_bit_for_bit_the_same(tiny, tmp_path):
    options = [*tiny, "--training.ema_half_life", "50", "--objective.mixup", "0.4"]
    whole = train(options)
    run = parse_run([*options, "--output", str(tmp_path / "other")])[0]
    Trainer(run).train()
    Trainer(run, resume="step-3", overwrite=True).train()
    for name in ("model", "ema", "best"):
        ours, theirs = (weights_of(folder / name) for folder in (whole.folder.path, run.output))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert RunFolder(run.output).read_step() == whole.folder.read_step()


def test_a_best_model_of_steps_that_are_made_again_does_not_count(tiny):
    folder = train(tiny).folder
    (folder.path / "best" / "training.json").write_text('{"step": 6}')
    trainer = Trainer(parse_run(tiny)[0], resume="step-3", overwrite=True)
    trainer.train()
    best = {line["step"]: line.get("validation/top_1") for line in read_lines(folder.metrics)}
    assert folder.read_step() in (4, 6)
    assert best[folder.read_step()] == trainer.best


@pytest.mark.parametrize("techniques", ["[sn]", "[ol]", "[ow]", "[ow, nog, olr]"])
@pytest.mark.parametrize("meta_layer", ["decorrelated_batch_norm", "covariance_pooling", "none"])
def test_techniques(tiny, techniques, meta_layer):
    options = ["--orthogonality", techniques, "--model.meta_layer", meta_layer]
    trainer = train(tiny, *options, "--training.steps", "2")
    assert all(value.isfinite().all() for value in trainer.task.learner.raw.state_dict().values())


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_weight_decay(tiny, tmp_path, kind):
    options = ["--optimizer.kind", kind, "--training.steps", "1", "--orthogonality", "[]"]
    options += ["--optimizer.lr", "1e-3"]
    plain = weights_of(train(tiny, *options).folder.path / "model")
    decayed = weights_of(
        train(
            tiny, *options, "--optimizer.weight_decay", "50", "--output", str(tmp_path / "decayed")
        ).folder.path
        / "model"
    )
    # Decoupled, and in a first step of SGD, it takes 5 % of every weight; Adam takes its sign.
    change = decayed["fc.weight"] - plain["fc.weight"]
    assert not torch.equal(decayed["fc.weight"], plain["fc.weight"])
    if kind != "adam":
        start = Trainer(parse_run([*tiny, *options, "--output", str(tmp_path / "start")])[0])
        before = start.task.learner.raw.state_dict()["fc.weight"]
        assert torch.allclose(change, -0.05 * before, atol=1e-6)


def test_weights_of_torchvision_to_start_from(tiny, tmp_path):
    theirs = resnet18().state_dict()
    torch.save(theirs, tmp_path / "resnet18.pth")
    options = ["--model.depth", "18", "--model.base_channels", "64", "--model.stem", "large"]
    options += ["--model.image_size", "32"]
    options += ["--objective.pretrained", str(tmp_path / "resnet18.pth")]
    new = ["--objective.pretrained_except", "[conv1, bn1, fc]"]
    ours = Trainer(parse_run([*tiny, *options, *new])[0]).task.learner.raw.state_dict()
    kept = [name for name in theirs if not name.startswith(("conv1", "bn1", "fc"))]
    assert all(torch.equal(ours[name], theirs[name]) for name in kept)
    with pytest.raises(ValueError, match=r"conv1\.weight must have the shape"):
        Trainer(parse_run([*tiny, *options])[0])
    train(tiny, *options, *new, "--training.steps", "1", "--objective.validation", "0")
    (tmp_path / "resnet18.pth").unlink()  # a run that is resumed does not start again
    options += ["--training.steps", "2", "--objective.validation", "0"]
    Trainer(parse_run([*tiny, *options, *new])[0], resume="latest")


def make_batch(labels=(0, 1, 2, 3), step=3):
    labels = torch.tensor(labels)
    images = labels.float().reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)  # the label as a grey value
    return Batch(images, step, range(len(labels)), seed=0, labels=labels)


def test_mixup_mixes_images_as_their_classes():
    images, others, share = mix(make_batch(), alpha=1.0)
    assert others.tolist() == [3, 0, 1, 2]
    expected = share * torch.arange(4) + (1 - share) * others
    assert torch.allclose(images[:, 0, 0, 0], expected)
    assert mix(make_batch(), 1.0)[2] == share
    assert mix(make_batch(step=4), 1.0)[2] != share


def test_shares_of_mixup_are_those_of_a_beta_distribution():
    shares = np.array([mix(make_batch(step=step), 0.2)[2] for step in range(2000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * 1.4), abs=0.01)


def test_the_loss_of_a_mixture_is_the_mixture_of_losses(tiny):
    options = ["--objective.mixup", "1", "--objective.label_smoothing", "0.1"]
    task = Trainer(parse_run([*tiny, *options])[0]).task
    images = torch.rand(8, 1, 8, 8)
    part = Batch(images, 5, range(8), seed=0, labels=torch.arange(8))
    model = task.learner.raw.eval()
    loss, terms = task._loss(part)
    mixed, others, share = mix(part, 1.0)
    targets = share * torch.eye(10)[:8] + (1 - share) * torch.eye(10)[others]
    expected = cross_entropy(model(mixed), 0.9 * targets + 0.01)
    assert torch.isclose(loss, expected)
    assert 0 <= terms["train/top_1"] <= 1


def test_evaluate_and_compare(tiny, capsys):
    folder = train(tiny).folder
    assert evaluate.main([str(folder.path)]) == 0
    entry = json.loads(folder.scores.read_text())["scores"]["accuracy"]
    assert entry["protocol"] == {"images": 360, "split": "test"}
    test = Digits(split="test")
    logits = classify(load_model(folder.final), test, Accelerator(cpu=True), batch_size=50)
    right = (logits.argmax(1).numpy() == test.labels).mean()
    assert entry["score"] == pytest.approx(right)
    assert np.sum(entry["details"]["confusion"]) == 360
    assert "not computed" not in capsys.readouterr().out
    assert compare.main([str(folder.path)]) == 0
    assert "accuracy, top_5" in capsys.readouterr().out


def test_what_has_no_meaning_for_a_classifier(tiny, capsys):
    folder = train(tiny, "--training.steps", "1").folder
    with pytest.raises(SystemExit):
        evaluate.main([str(folder.path), "--metrics", "mig"])
    with pytest.raises(SystemExit):
        traverse.main([str(folder.path)])
    errors = capsys.readouterr().err
    assert "mig of" in errors
    assert "is a run of the task classification: it has no generator" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.classes", "5"], "model.classes is 5, but the data set 'digits' has 10"),
        (
            ["--data.name", "sprites", "--model.image_size", "32"],
            "needs images with classes: 'sprites' has none",
        ),
        (["--data.split", "test"], "data.split must differ from objective.test_split, got test"),
        (
            ["--objective.test_split", "val"],
            "'digits' cannot be tested with objective.test_split val .*split must be one of",
        ),
        (["--objective.mixup", ".inf"], "objective.mixup must be finite, got inf"),
        (["--objective.validation", "0.001"], "objective.validation 0.001: "),
        (["--objective.validation", "1"], r"objective.validation must lie in \[0, 1\), got 1"),
        (["--objective.mixup", "-1"], "objective.mixup must not be negative, got -1"),
        (["--objective.validate_every", "0"], "objective.validate_every must be positive, got 0"),
    ],
)
def test_bad_options(tiny, options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(parse_run([*tiny, *options])[0])


@pytest.mark.parametrize("change", [["--objective.validation", "0.6"], ["--data.split", "test"]])
def test_a_run_goes_on_with_the_same_images_only(tiny, change):
    train(tiny, "--training.steps", "1", "--objective.test_split", "none")
    run, _ = parse_run([*tiny, "--objective.test_split", "none", *change])
    with pytest.raises(ValueError, match=f"has another architecture: {change[0][2:]} is"):
        Trainer(run, resume="latest")


def test_a_classifier_that_diverges_is_told_in_one_line(tiny, capsys):
    options = ["--optimizer.lr", "1e30", "--training.log_every", "100"]
    assert train_command.main([*tiny, *options]) == 1
    (line,) = re.findall("^.*error: .*$", capsys.readouterr().err, flags=re.MULTILINE)
    assert re.search(r"not finite, first at step \d: loss, .*; lower optimizer.lr\?", line)


def test_a_class_without_images_to_train_on(tiny, tmp_path):
    for file in ("train/a/0.png", "train/a/1.png", "test/b/2.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / file)
    options = ["--data.name", "class_folder", "--data.path", str(tmp_path), "--model.classes", "2"]
    with pytest.raises(ValueError, match="'class_folder' has no training images of the classes: b"):
        Trainer(parse_run([*tiny, *options])[0])


def test_a_corrupt_image_that_is_found_in_training(tiny, tmp_path, capsys):
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("L", (8, 8)).save(tmp_path / "train" / name / f"{i}.png")
    (tmp_path / "train" / "a" / "3.png").write_bytes(b"no image")
    options = ["--data.name", "class_folder", "--data.path", str(tmp_path), "--model.classes", "2"]
    options += ["--data.check", "false", "--objective.test_split", "none"]
    assert train_command.main([*tiny, *options, "--objective.validation", "0"]) == 1
    (line,) = re.findall("disentangle train: error: .*$", capsys.readouterr().err, re.MULTILINE)
    assert re.search(r"cannot decode .*3\.png", line)


def test_images_that_others_are_held_out_of(tiny, tmp_path, complaint):
    train(tiny)
    manifest = tmp_path / "run" / "checkpoints" / "step-6" / "manifest.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(facts | {"images": facts["images"] + 1}))
    message = complaint(train_command.main, [*tiny, "--resume", "--training.steps", "7"])
    assert (
        "the data set had 1438 images and has 1437 now, which changes the held-out images"
        in message
    )
