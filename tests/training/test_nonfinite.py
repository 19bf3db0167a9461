"""Losses and gradients that are not finite: no step is made of them, and they are told by name."""

import json
import math
import re

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from disentangle.config import OptimizerConfig, TrainingConfig
from disentangle.config.parse import parse_run
from disentangle.models.layers import DecorrelatedBatchNorm2d, Whitening
from disentangle.runs.metrics_log import read_lines
from disentangle.train import main
from disentangle.training import trainer as trainer_module
from disentangle.training.batches import Batch
from disentangle.training.learner import build_optimizer
from disentangle.training.nonfinite import (
    SMALLEST_SCALE,
    StepGuard,
    carry_into_gradient,
    check_weights,
)
from disentangle.training.trainer import Trainer

SKIP = ["--training.on_nonfinite", "skip"]
OPTIMIZERS = {
    "adam": OptimizerConfig(lr=0.1),
    "adamw": OptimizerConfig(kind="adamw", lr=0.1, weight_decay=0.1),
    "sgd": OptimizerConfig(kind="sgd", lr=0.1, momentum=0.9),
    "plain sgd": OptimizerConfig(kind="sgd", lr=0.1, momentum=0.0),
}


def spoil_loss(trainer, steps, factor=math.nan, name="_loss"):
    """Multiplies the loss of some steps, as it comes out of the network."""
    original = getattr(trainer.task, name)

    def loss(*arguments):
        value, terms = original(*arguments)
        if arguments[-1].step not in steps:
            return value, terms
        return value * factor, {key: term * factor for key, term in terms.items()}

    setattr(trainer.task, name, loss)


def spoil_gradient(trainer, parameter, steps, factor=math.nan):
    """Multiplies the gradient of one parameter at some steps; the loss stays as it is."""

    def spoil(gradient):
        return gradient * factor if trainer.step + 1 in steps else gradient

    trainer.task.learner.raw.get_parameter(parameter).register_hook(spoil)


def start(options, *more, **keywords):
    return Trainer(parse_run([*options, *more])[0], **keywords)


def finite(module):
    tensors = module.state_dict().values()
    return all(tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point())


def snapshot(learners):
    """Weights, buffers and the state of the optimizers."""
    tensors = [x for learner in learners for x in learner.raw.state_dict().values()]
    states = [state for learner in learners for state in learner.optimizer.state.values()]
    return [x.clone() for x in (*tensors, *(x for state in states for x in state.values()))]


@pytest.fixture
def tiny_classifier(tmp_path):
    """Options of a classification run that trains for a moment, in `tmp_path / "run"`."""
    return [
        *("--task", "classification", "--model.name", "resnet", "--data.name", "digits"),
        *("--model.depth", "10", "--model.image_size", "8", "--model.image_channels", "1"),
        *("--model.base_channels", "4", "--model.meta_layer", "decorrelated_batch_norm"),
        *("--optimizer.kind", "sgd", "--optimizer.lr", "0.05", "--training.steps", "6"),
        *("--training.batch_size", "16", "--training.log_every", "2"),
        *("--objective.validate_every", "2", "--training.checkpoint_every", "3"),
        *("--orthogonality", "[nog, olr]", "--output", str(tmp_path / "run")),
    ]


# One step


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("first", [True, False], ids=["first step", "later step"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_that_is_not_made_leaves_no_trace(kind, first, bad):
    """Also the first, after which torch leaves the momentum of a fused SGD uninitialised."""
    batches = torch.randn(4, 8, 3)

    def descend(bad_steps):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        optimizer = build_optimizer(OPTIMIZERS[kind], network)
        guard = StepGuard(network, optimizer)
        torch.full((1000,), 1e30)  # what uninitialised memory may hold
        for step, batch in enumerate(batches):
            for spoilt in (True, False) if step in bad_steps else (False,):
                guard.keep_buffers()
                factor = bad if spoilt else 1.0
                carry_into_gradient(network(factor * batch).square().mean()).backward()
                guard.inspect(step)
                optimizer.step()
                optimizer.zero_grad()
        return network.state_dict(), guard

    bad_step = 0 if first else 2
    expected, untouched = descend([])
    got, guard = descend([bad_step])
    for name, tensor in expected.items():
        if tensor.is_floating_point():
            assert torch.equal(got[name], tensor), name
    assert guard.skipped == 1
    assert guard.streak == 0
    assert guard.firsts.min() == bad_step
    assert untouched.skipped == 0
    assert untouched.firsts.isinf().all()


def test_a_loss_is_changed_by_nothing_but_being_not_finite():
    for value in (3.7, -1e-30, 3e38, 0.0):
        x = torch.tensor(value, requires_grad=True)
        loss = carry_into_gradient(x * 1.0)
        loss.backward()
        assert loss == value
        assert x.grad == 1


def test_parameters_without_gradient():
    network = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)])
    optimizer = build_optimizer(OptimizerConfig(), network)
    guard = StepGuard(network, optimizer)
    (network[1].weight * torch.tensor([1.0, math.nan])).sum().backward()
    guard.inspect(5)
    assert guard.firsts.tolist() == [math.inf, math.inf, 5, math.inf]
    assert guard.names[2] == "1.weight"


def test_a_gradient_scaler_decides_until_no_scale_helps():
    """Overflow is the scaler's daily work; a gradient that overflows at any scale is not."""
    network = nn.Linear(2, 1)
    optimizer = build_optimizer(OptimizerConfig(kind="sgd", lr=0.1), network)
    guard = StepGuard(network, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=SMALLEST_SCALE)
    before = network.weight.detach().clone()
    for step in range(3):  # at the smallest scale, half of it, a quarter
        scaler.scale(network(torch.ones(1, 2)).sum() * math.nan).backward()
        scaler.unscale_(optimizer)
        guard.inspect(step, scaler)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert torch.equal(network.weight, before)
    assert guard.skipped == guard.streak == 2
    assert guard.firsts.tolist() == [1, 1]


def check_spoilt_step(trainer, count_scalars, first=0):
    """A step on images that are not finite leaves learners from the `first` on as they were."""
    images = torch.rand(8, 1, 32, 32)
    trainer.task.step(Batch(images, step=2, samples=range(8), seed=0))
    before = snapshot(trainer.task.learners[first:])
    with count_scalars() as count:
        trainer.task.step(Batch(images * math.nan, step=4, samples=range(8), seed=0))
    assert count.calls == 0
    for one, other in zip(before, snapshot(trainer.task.learners[first:]), strict=True):
        assert torch.equal(one, other)
    assert [learner.guard.skipped.item() for learner in trainer.task.learners[first:]] != [0]


@pytest.mark.parametrize("kind", ["beta", "factor"])
def test_a_spoilt_step_of_a_vae(tiny_vae, count_scalars, kind):
    options = ["--training.conditioning_every", "0", "--training.log_every", "100"]
    check_spoilt_step(start(tiny_vae, *options, "--objective.kind", kind), count_scalars)


def test_a_spoilt_step_of_a_discriminator(tiny_gan, count_scalars):
    """The generator does not see the images."""
    trainer = start(tiny_gan, "--training.conditioning_every", "0")
    check_spoilt_step(trainer, count_scalars, first=1)
    assert trainer.task.learner.guard.skipped == 0
    assert trainer.task.discriminator.guard.skipped == 2  # with R1


# Runs


def test_a_run_stops_with_step_term_and_checkpoint_and_goes_on(tiny_vae, tmp_path):
    """The checkpoint is from before: the run that goes on ends as one that nothing happened to."""
    whole = start(tiny_vae, "--output", str(tmp_path / "whole"))
    whole.train()
    trainer = start(tiny_vae)
    spoil_loss(trainer, steps=[5])
    with pytest.raises(FloatingPointError, match=r"^not finite, first at step 5: loss, loss/recon"):
        trainer.train()
    last = read_lines(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["step"] == 6
    assert last["loss"] is None
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-3"]
    assert json.loads((tmp_path / "run" / "model" / "training.json").read_text()) == {"step": 3}
    resumed = start(tiny_vae, resume="latest")
    resumed.train()
    for one, other in zip(
        snapshot(resumed.task.learners), snapshot(whole.task.learners), strict=True
    ):
        assert torch.equal(one, other)


def test_a_gradient_is_named(tiny_gan):
    trainer = start(tiny_gan)
    spoil_gradient(trainer, "to_image.weight", [2], math.inf)
    with pytest.raises(FloatingPointError) as told:
        trainer.train()
    assert str(told.value) == (
        "not finite, first at step 2: the gradient of 'to_image.weight' (EigenGAN)"
    )


def test_the_command_says_it_in_one_line(tiny_vae, capsys, monkeypatch):
    descend = trainer_module.VAETask.step

    def step(task, batch):
        factor = math.inf if batch.step > 4 else 1.0
        return descend(task, Batch(batch.images * factor, batch.step, batch.samples, batch.seed))

    monkeypatch.setattr(trainer_module.VAETask, "step", step)
    assert main(tiny_vae) == 1
    (line,) = re.findall("^.*error: .*$", capsys.readouterr().err, flags=re.MULTILINE)
    assert re.search(
        r"not finite, first at step 5: loss, .* and \d+ more; the last good checkpoint is step-3;",
        line,
    )
    assert line.endswith("; continue from it with --resume; lower optimizer.lr?")
    assert main([*tiny_vae, "--overwrite", "--training.checkpoint_every", "100"]) == 1
    assert "; there is no checkpoint yet; " in capsys.readouterr().err


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_skipped_steps_are_counted_and_left_out_of_means(tiny_vae, capsys, factor):
    trainer = start(tiny_vae, *SKIP)
    spoil_loss(trainer, steps=[3, 5, 6], factor=factor)
    trainer.train()
    lines = read_lines(trainer.folder.metrics)
    assert [line["skipped_steps"] for line in lines if "loss" in line] == [0, 1, 0, 2]
    assert [line["loss"] is None for line in lines if "loss" in line] == [False, True, False, True]
    errors = capsys.readouterr().err
    assert "skipped optimizer steps: 1; not finite, first at step 3: loss, loss/rec" in errors
    assert "skipped optimizer steps: 2; not finite, first at step 5: loss, loss/rec" in errors
    assert finite(trainer.task.learner.raw)


def test_too_many_steps_in_a_row_end_the_run(tiny_vae):
    trainer = start(tiny_vae, *SKIP, "--training.max_skipped", "3", "--training.steps", "20")
    spoil_loss(trainer, steps=[2, 3, 4, 6, 8, *range(10, 20)])
    message = (
        r"^5 steps in a row were skipped, more than training.max_skipped 3; "
        "not finite, first at step 13: loss, "
    )
    with pytest.raises(FloatingPointError, match=message):
        trainer.train()
    assert trainer.step == 14


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("tiny_vae", ["--model.whiten_codes", "true", "--training.ema_half_life", "100"]),
        ("tiny_vae", ["--objective.kind", "factor", "--orthogonality", "[nog, olr, sn]"]),
        ("tiny_vae", ["--objective.kind", "beta_tc", "--training.mixed_precision", "bf16"]),
        ("tiny_vae", ["--optimizer.kind", "sgd", "--training.accumulation", "2"]),
        ("tiny_gan", ["--objective.regulariser", "variation_predictability"]),
        ("tiny_gan", ["--orthogonality", "[ow, nog]", "--objective.regulariser", "orojar"]),
        ("tiny_classifier", ["--training.ema_half_life", "100"]),
        ("tiny_classifier", ["--model.meta_layer", "covariance_pooling"]),
    ],
)
def test_images_that_are_not_finite_pass_by(request, monkeypatch, task, options):
    """Neither weights nor averages nor the statistics of norms have seen them."""
    augment = trainer_module.augment

    def spoil(batch, training):
        batch = augment(batch, training)
        factor = math.nan if batch.step == 3 else 1.0
        images = batch.images * factor
        return Batch(images, batch.step, batch.samples, batch.seed, batch.labels)

    monkeypatch.setattr(trainer_module, "augment", spoil)
    trainer = start(request.getfixturevalue(task), *SKIP, *options)
    trainer.train()
    assert trainer.step == 6
    assert sum(line.get("skipped_steps", 0) for line in read_lines(trainer.folder.metrics)) >= 1
    assert all(finite(learner.raw) for learner in trainer.task.learners)
    assert trainer.average is None or finite(trainer.average)


def test_weights_that_the_last_step_has_lost_are_not_saved(tiny_vae, tmp_path):
    """Its loss and gradient were finite, and no step comes after that would not be."""
    trainer = start(tiny_vae)
    make_step, weight = trainer.task.step, next(trainer.task.learner.raw.parameters())

    def step(batch):
        terms = make_step(batch)
        if batch.step == 6:
            weight.data.view(-1)[0] = math.inf
        return terms

    trainer.task.step = step
    with pytest.raises(FloatingPointError, match=r"^encoder.* of model is not finite after step 6"):
        trainer.train()
    assert [entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-3"]
    assert json.loads((tmp_path / "run" / "model" / "training.json").read_text()) == {"step": 3}


def test_check_weights():
    accelerator, network = Accelerator(cpu=True), nn.BatchNorm1d(2)
    check_weights(accelerator, {"model": network}, 7)
    network.running_var[1] = math.inf
    with pytest.raises(
        FloatingPointError, match=r"^running_var of ema is not finite after step 7$"
    ):
        check_weights(accelerator, {"model": nn.Linear(2, 2), "ema": network}, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"on_nonfinite": "skip", "max_skipped": 0},
            "training.max_skipped must be positive, got 0",
        ),
        ({"max_skipped": 3}, "training.max_skipped requires training.on_nonfinite skip, got stop"),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)


# What has no spread


@pytest.mark.parametrize("value", [0.0, 1.0, -300.0])
@pytest.mark.parametrize(
    "layer", [DecorrelatedBatchNorm2d(6), Whitening(dim=6)], ids=lambda layer: type(layer).__name__
)
def test_a_covariance_of_zero_whitens_to_zero(layer, value):
    shape = (4, 6, 5, 5) if isinstance(layer, DecorrelatedBatchNorm2d) else (4, 6)
    x = torch.full(shape, value, requires_grad=True)
    y = layer(x)
    y.square().sum().backward()
    torch.testing.assert_close(y, torch.zeros(shape), atol=1e-3, rtol=0)
    assert x.grad.isfinite().all()
    assert finite(layer)


@pytest.mark.parametrize(
    "options",
    [[], ["--model.meta_layer", "covariance_pooling"], ["--model.meta_layer", "none"]],
    ids=["decorrelated", "pooling", "none"],
)
def test_images_of_one_colour_train_a_classifier(tiny_classifier, monkeypatch, options):
    augment = trainer_module.augment

    def blank(batch, training):
        batch = augment(batch, training)
        images = torch.zeros_like(batch.images)
        return Batch(images, batch.step, batch.samples, batch.seed, batch.labels)

    monkeypatch.setattr(trainer_module, "augment", blank)
    trainer = start(tiny_classifier, *options)
    trainer.train()
    assert finite(trainer.task.learner.raw)


@pytest.mark.parametrize("options", ["tiny_vae", "tiny_gan"])
def test_a_batch_of_one(options, request):
    trainer = start(request.getfixturevalue(options), "--training.batch_size", "1")
    trainer.train()
    assert finite(trainer.task.learner.raw)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("tiny_classifier", [], "batch normalisation needs at least 2 images at once, got 1"),
        ("tiny_vae", ["--model.whiten_codes", "true"], "whiten_codes needs at least 2 images"),
        (
            "tiny_vae",
            [
                "--objective.kind",
                "beta_tc",
                "--objective.total_correlation_estimator",
                "stratified",
            ],
            "'beta_tc' compares the images of a batch with each other, so that training.batch_size",
        ),
    ],
)
def test_a_batch_of_one_that_has_no_statistics(request, task, options, message):
    with pytest.raises(ValueError, match=message):
        start(request.getfixturevalue(task), "--training.batch_size", "1", *options)
