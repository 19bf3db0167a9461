"""The task `gan`: what makes its images, its losses and its penalties."""

from functools import partialmethod

import pytest
import torch
from torch import nn

from disentangle.config.parse import parse_run
from disentangle.models import load_model
from disentangle.runs.metrics_log import read_lines
from disentangle.training.batches import Batch
from disentangle.training.trainer import Trainer


@pytest.fixture
def train(tiny_gan, tmp_path):
    """`train("--option", "value", …)`: the generator's weights and the lines of the log."""

    def run(*options, name="run"):
        parsed, _ = parse_run([*tiny_gan, "--output", str(tmp_path / name), *options])
        Trainer(parsed).train()
        return load_model(parsed.output / "model").state_dict(), read_lines(
            parsed.output / "metrics.jsonl"
        )

    return run


def assert_near(a, b, atol=1e-4):
    for name, tensor in a.items():
        assert torch.allclose(tensor, b[name], atol=atol), name


def test_shared_images_are_those_that_each_step_would_make(train):
    """Parts of a batch make images twice, from the same latents."""
    weights, lines = train()
    parts, _ = train("--training.accumulation", "2", name="parts")
    assert_near(weights, parts)
    fresh, other = train("--objective.fresh_latents", "true", name="fresh")
    assert lines[0]["logits/fake"] == pytest.approx(other[0]["logits/fake"], rel=1e-3)
    name = "to_image.weight"
    assert (weights[name] - fresh[name]).abs().max() > 1e-4


def test_a_step_makes_its_images_once(tiny_gan, monkeypatch):
    calls = []
    run, _ = parse_run([*tiny_gan, "--training.steps", "1", "--training.sample_every", "1000"])
    trainer = Trainer(run)
    trainer.task.learner.raw.to_image.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(trainer, "_write_sheet", lambda: None)
    trainer.train()
    assert len(calls) == 1


@pytest.mark.parametrize("loss", ["non_saturating", "bce", "lsgan", "wasserstein"])
def test_losses_and_the_gradient_penalty(train, loss):
    plain, lines = train("--objective.loss", loss)
    options = ["--objective.loss", loss, "--objective.gradient_penalty_weight", "10"]
    penalised, more = train(*options, name="penalised")
    assert "gradient_penalty" not in lines[-1]
    # The first discriminator has next to no slope.
    assert more[0]["gradient_penalty"] == pytest.approx(1, abs=0.2)
    assert any(not torch.equal(plain[name], penalised[name]) for name in plain)


def test_memory_order_changes_rounding_alone(train):
    fast, _ = train("--training.channels_last", "true")
    plain, _ = train("--training.channels_last", "false", name="plain")
    assert_near(fast, plain)


# Looked at by the compiler, as it traces a call of the discriminator on made images.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiled_networks_train_alike(train, monkeypatch):
    # Without a compiler for kernels, which a machine may lack.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))
    penalty = ["--objective.gradient_penalty_weight", "1"]  # beside R1, which differentiates twice
    compiled, _ = train("--training.compile", "true", *penalty)
    eager, _ = train(*penalty, name="eager")
    assert_near(compiled, eager)


REGULARISERS = ["hessian_penalty", "orojar", "variation_predictability"]


@pytest.mark.parametrize("regulariser", REGULARISERS)
@pytest.mark.parametrize("techniques", ["[]", "[ow, nog]", "[sn]"])
def test_regularisers(train, regulariser, techniques):
    options = ["--orthogonality", techniques, "--objective.regulariser", regulariser]
    options += ["--objective.regulariser_layers", "[blocks.0, blocks.2]"]
    options += ["--objective.regulariser_weight"]
    held, lines = train(*options, "1")
    assert all(line["regulariser"] > 0 for line in lines)
    free, _ = train(*options, "0", name="free")
    name = "noise_projection.weight"
    assert (held[name] - free[name]).abs().max() > 5e-5


@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_regularised_parts_make_the_same_step(train, regulariser):
    # The published maximum over the images is not the mean of those over parts.
    options = ["--objective.regulariser", regulariser, "--objective.regulariser_reduction", "mean"]
    whole, _ = train(*options)
    parts, _ = train(*options, "--training.accumulation", "2", name="parts")
    assert_near(whole, parts)


def test_a_heavy_regulariser_does_what_it_is_for(train):
    """OroJaR of the images falls, by exact derivatives as well."""
    options = ["--objective.regulariser", "orojar", "--training.steps", "20"]
    options += ["--objective.regulariser_difference", "exact", "--optimizer.lr", "1e-3"]
    options += ["--training.log_every", "10", "--orthogonality", "[]"]
    _, free = train(*options, "--objective.regulariser_weight", "0", name="free")
    _, held = train(*options, "--objective.regulariser_weight", "1000", name="held")
    assert held[-1]["regulariser"] < 0.3 * free[-1]["regulariser"]


@pytest.mark.parametrize("techniques", ["[nog, olr, ol]", "[ow, nog]", "[sn]"])
def test_simple_gan(tiny_gan, train, techniques):
    place = tiny_gan.index("--model.noise_dim")
    del tiny_gan[place : place + 2]
    options = ["--model.name", "simple_gan", "--model.image_size", "64"]
    model = ["--model.latent_dim", "3", "--discriminator.name", "simple_gan"]
    weights, lines = train(*options, *model, "--orthogonality", techniques)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    assert "conditioning/latent_projection.weight/weight/condition" in lines[-1]


def test_activeness_is_logged_and_a_dead_subspace_is_told(tiny_gan, capsys):
    run, _ = parse_run([*tiny_gan, "--training.activeness_every", "1"])
    trainer = Trainer(run)
    for model in (trainer.task.learner.raw, trainer.average.module):
        model.blocks[1].subspace.L.requires_grad_(False).zero_()
    trainer.train()
    lines = read_lines(run.output / "metrics.jsonl")
    assert [line["step"] for line in lines if "activeness/block 0" in line] == [*range(1, 7)]
    assert lines[-1]["activeness/block 1"] < 1e-2 * lines[-1]["activeness/block 0"]
    assert "block 1 hardly changes the image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective.gradient_penalty_weight", "-1"], "gradient_penalty_weight must not be neg"),
        (["--objective.loss", "lsgan", "--objective.hinged_generator", "true"], "got 'lsgan'"),
        (["--objective.loss", "wasserstein", "--objective.r1_weight", "0"], "has no minimum"),
        (["--objective.regulariser_directions", "1"], "must be at least 2"),
    ],
)
def test_bad_options(tiny_gan, options, message):
    with pytest.raises(ValueError, match=message):
        parse_run([*tiny_gan, *options])


def test_a_layer_that_is_not_there_is_refused_before_anything_is_written(tiny_gan, tmp_path):
    run, _ = parse_run([*tiny_gan, "--objective.regulariser_layers", "[blocs.0]"])
    with pytest.raises(ValueError, match=r"no layer is named 'blocs.0'; there is blocks.0"):
        Trainer(run)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--orthogonality", "[nog, olr, ol]", "--objective.gradient_penalty_weight", "1"],
        ["--orthogonality", "[ow]", "--objective.regulariser", "orojar"],
        ["--orthogonality", "[sn]", "--objective.regulariser", "hessian_penalty"],
        ["--objective.regulariser", "variation_predictability"],
    ],
    ids=["penalty", "orojar", "hessian", "variation"],
)
def test_a_step_waits_for_no_value(tiny_gan, options, count_scalars):
    run, _ = parse_run([*tiny_gan, "--training.conditioning_every", "0", *options])
    trainer = Trainer(run)
    images = torch.zeros(8, 1, 32, 32)
    trainer.task.step(Batch(images, step=2, samples=range(8), seed=0))
    with count_scalars() as count:
        trainer.task.step(Batch(images, step=4, samples=range(8), seed=0))  # with R1
    assert count.calls == 0


@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_a_regularised_run_resumes_bit_for_bit(tiny_gan, train, tmp_path, regulariser):
    options = ["--objective.regulariser", regulariser, "--orthogonality", "[sn]"]
    whole, _ = train(*options, name="whole")
    train(*options, "--training.steps", "3", name="halves")
    halves = [*tiny_gan, *options, "--output", str(tmp_path / "halves"), "--resume"]
    Trainer(parse_run(halves)[0], resume="latest").train()
    resumed = load_model(tmp_path / "halves" / "model").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_recogniser_that_is_new_is_refused_on_resuming(tiny_gan, train):
    train("--training.steps", "3")
    options = [*tiny_gan, "--objective.regulariser", "variation_predictability"]
    run, _ = parse_run(options)
    with pytest.raises(ValueError, match="a recogniser of the regulariser is False there and True"):
        Trainer(run, resume="latest")
