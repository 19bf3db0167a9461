"""The task `vae` with each of its objectives: losses by hand, runs, processes and parts."""

import itertools
import os
from functools import partial

import pytest
import torch
from accelerate import Accelerator
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from disentangle.config import VAEObjective
from disentangle.config.parse import parse_run
from disentangle.config.vae import KINDS_OF_OPTION
from disentangle.distributed.all_gather import join_processes, share_loss
from disentangle.losses.beta_tcvae import total_correlation
from disentangle.losses.dip_vae import code_covariance
from disentangle.losses.elbo import gaussian_divergence
from disentangle.models import load_model
from disentangle.runs.metrics_log import read_lines
from disentangle.training.batches import Batch
from disentangle.training.trainer import Trainer
from disentangle.training.vae.penalties import build_penalty
from disentangle.training.vae.penalty import Posterior

SIZE = 5000  # images of a data set
FACTOR = ["--objective.kind", "factor", "--objective.discriminator_dim", "16"]
KINDS = ["beta", "annealed", "factor", "beta_tc", "dip_1", "dip_2"]
NAMES_OF_TERMS = {
    "annealed": {"capacity"},
    "factor": {"loss/total_correlation", "loss/discriminator"},
    "beta_tc": {"loss/total_correlation"},
    "dip_1": {"loss/covariance"},
    "dip_2": {"loss/covariance"},
}


@pytest.fixture
def parse(tiny_vae):
    return lambda *options: parse_run([*tiny_vae, *options])[0]


@pytest.fixture
def posterior():
    mean, log_variance, noise = torch.randn(3, 8, 10)
    return Posterior(mean, log_variance, mean + noise * (log_variance / 2).exp())


def make_part(step=1, samples=range(8)):
    return Batch(torch.zeros(len(samples), 1, 32, 32), step, samples, seed=0)


def penalise(run, posterior, step=1):
    penalty = build_penalty(run, Accelerator(cpu=True), 10, SIZE)
    value, terms = penalty.loss(make_part(step), posterior)
    divergence = gaussian_divergence(posterior.mean, posterior.log_variance).sum()
    assert torch.isclose(terms.pop("loss/divergence"), divergence)
    return value, terms, divergence


def test_beta(parse, posterior):
    value, terms, divergence = penalise(parse("--objective.beta", "3"), posterior)
    assert torch.isclose(value, 3 * divergence)
    assert terms == {}


@pytest.mark.parametrize(("step", "capacity"), [(1, 0.0), (51, 2.0), (1000, 4.0)])
def test_annealed(parse, posterior, step, capacity):
    options = ["--objective.capacity", "4", "--objective.capacity_steps", "100"]
    run = parse("--objective.kind", "annealed", *options)
    value, terms, divergence = penalise(run, posterior, step)
    assert torch.isclose(value, 1000 * (divergence - capacity).abs())
    assert terms["capacity"] == capacity


@pytest.mark.parametrize("estimator", ["weighted", "stratified"])
def test_beta_tc(parse, posterior, estimator):
    choice = ["--objective.total_correlation_estimator", estimator]
    run = parse("--objective.kind", "beta_tc", *choice)
    value, terms, divergence = penalise(run, posterior)
    mean, log_variance, z = posterior
    size = None if estimator == "weighted" else SIZE
    expected = total_correlation(z, mean, log_variance, data_size=size)
    assert torch.isclose(terms["loss/total_correlation"], expected)
    assert torch.isclose(value, divergence + 5 * expected)


@pytest.mark.parametrize(("kind", "factor"), [("dip_1", 10), ("dip_2", 1)])
def test_dip(parse, posterior, kind, factor):
    value, terms, divergence = penalise(parse("--objective.kind", kind), posterior)
    covariance = code_covariance(
        posterior.mean, posterior.log_variance if kind == "dip_2" else None
    )
    diagonal = covariance.diagonal()
    off = covariance - diagonal.diag()
    expected = 10 * off.square().sum() + 10 * factor * (diagonal - 1).square().sum()
    assert torch.isclose(terms["loss/covariance"], expected)
    assert torch.isclose(value, divergence + expected)


def test_factor(parse, posterior):
    posterior.z.requires_grad_()
    penalty = build_penalty(parse(*FACTOR), Accelerator(cpu=True), 10, SIZE)
    discriminator = penalty.discriminator.raw
    value, terms = penalty.loss(make_part(), posterior)
    p = discriminator(posterior.z).softmax(1)[:, 0]
    expected = (p / (1 - p)).log().mean()
    assert torch.isclose(terms["loss/total_correlation"], expected, atol=1e-6)
    assert torch.isclose(value, posterior.divergence() + 10 * expected, atol=1e-5)
    value.backward()
    assert posterior.z.grad.any()
    group = penalty.discriminator.optimizer.param_groups[0]
    assert (group["lr"], group["betas"]) == (1e-4, (0.5, 0.9))


def test_the_discriminator_of_factor_vae_permutes_over_parts(parse, posterior):
    """What it learns from does not depend on how the batch is divided."""
    penalty = build_penalty(parse(*FACTOR), Accelerator(cpu=True), 10, SIZE)
    seen = []
    penalty.discriminator.descend = lambda parts, loss: seen.append(dict(penalty.permuted)) or {}
    whole = make_part()
    for parts in ([whole], whole.split(4)):
        for part in parts:
            rows = Posterior(*(t[part.samples.start : part.samples.stop] for t in posterior))
            penalty.loss(part, rows)
        penalty.step(parts)
    one, four = (torch.cat(list(permuted.values())) for permuted in seen)
    assert torch.equal(one, four)
    assert not torch.equal(one, posterior.z)
    assert torch.equal(one.sort(0).values, posterior.z.sort(0).values)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains(tiny_vae, tmp_path, kind):
    options = FACTOR if kind == "factor" else ["--objective.kind", kind]
    run, _ = parse_run([*tiny_vae, *options, "--objective.likelihood", "laplace"])
    trainer = Trainer(run)
    before = {name: p.detach().clone() for name, p in trainer.task.learner.raw.named_parameters()}
    trainer.train()
    lines = read_lines(run.output / "metrics.jsonl")
    assert {"loss", "loss/reconstruction", "loss/divergence"} <= lines[-1].keys()
    assert NAMES_OF_TERMS.get(kind, set()) == lines[-1].keys() & set.union(*NAMES_OF_TERMS.values())
    after = dict(trainer.task.learner.raw.named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert len(list(run.output.glob("*/config.json"))) == 1


def test_factor_vae_resumes_with_its_discriminator(tiny_vae, tmp_path):
    options = [*tiny_vae, *FACTOR, "--objective.density_ratio_weight", "1000"]
    run, _ = parse_run(options)
    whole = Trainer(run)
    whole.train()
    resumed = Trainer(run, resume="step-3", overwrite=True)
    resumed.train()
    for get in (lambda task: task.learner, lambda task: task.penalty.discriminator):
        a, b = (get(trainer.task).raw.state_dict() for trainer in (whole, resumed))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_whitened_codes_train_and_are_saved(tiny_vae, tmp_path):
    options = ["--model.whiten_codes", "true", "--training.ema_half_life", "16"]
    run, _ = parse_run([*tiny_vae, *options])
    trainer = Trainer(run)
    trainer.train()
    saved, trained = load_model(run.output / "model"), trainer.task.learner.raw.eval()
    images = torch.rand(4, 1, 32, 32)
    assert torch.allclose(saved.encode(images), trained.encode(images), atol=1e-5)
    running = saved.encoder.posterior.whitening.running_whitening
    average = load_model(run.output / "ema").encoder.posterior.whitening.running_whitening
    assert not torch.equal(running, torch.eye(10))
    assert not torch.equal(running, average)


@pytest.mark.parametrize("kind", ["annealed", "beta_tc", "dip_1", "dip_2"])
def test_parts_of_a_batch_are_refused(parse, kind):
    run = parse("--objective.kind", kind, "--training.accumulation", "2")
    with pytest.raises(ValueError, match=f"'{kind}' needs the batch .* must be 1, got 2"):
        Trainer(run)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "objective.beta must not be negative, got -1.0"),
        ({"kind": "dip_1", "beta": 4.0}, "objective.beta requires objective.kind beta, got dip_1"),
        ({"diagonal_factor": 2.0}, "requires objective.kind dip_1 or dip_2, got beta"),
        ({"kind": "annealed", "capacity_steps": 0}, "objective.capacity_steps must be positive"),
        ({"kind": "dip_2", "diagonal_factor": -1.0}, "diagonal_factor must not be negative"),
        ({"kind": "factor", "discriminator_lr": 0.0}, "discriminator_lr must be positive"),
        ({"kind": "factor", "discriminator_betas": (1.0, 0.0)}, r"must lie in \[0, 1\), got \(1"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VAEObjective(**options)


def test_every_option_has_its_kind():
    assert KINDS_OF_OPTION.keys() | {"kind", "likelihood"} == VAEObjective.__annotations__.keys()
    assert set(itertools.chain(*KINDS_OF_OPTION.values())) == set(KINDS)


def covariance_gradients(network, images, join=lambda values: values, share=lambda loss: loss):
    share(code_covariance(join(network(images))).square().sum()).backward()
    return [parameter.grad for parameter in network.parameters()]


def make_network():
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def permute(run, accelerator, codes, samples):
    """What the discriminator of FactorVAE is to learn from."""
    penalty = build_penalty(run, accelerator, 3, SIZE)
    penalty.discriminator.descend = lambda parts, loss: penalty.permuted[samples]
    part = make_part(samples=samples)
    penalty.loss(part, Posterior(codes, codes, codes))
    return penalty.step([part])


def check_process(rank, run, images, gradients, permuted, folder):
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    # Accelerate asks for an address, but takes the process group that there is.
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "none", "MASTER_PORT": "0"}
    accelerator = Accelerator()
    assert accelerator.num_processes == 2
    join, share = partial(join_processes, accelerator), partial(share_loss, accelerator)
    own = range(8)[4 * rank :][:4]
    network, rows = DistributedDataParallel(make_network()), slice(own.start, own.stop)
    torch.testing.assert_close(covariance_gradients(network, images[rows], join, share), gradients)
    assert share(torch.tensor(3.0)) == 3
    assert torch.equal(permute(run, accelerator, images[rows, :3], own), permuted[rows])
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_do_as_one_with_the_joint_batch(parse, tmp_path):
    run, images = parse(*FACTOR), torch.randn(8, 5)
    gradients = covariance_gradients(make_network(), images)
    permuted = permute(run, Accelerator(cpu=True), images[:, :3], range(8))
    arguments = (run, images, gradients, permuted, str(tmp_path))
    multiprocessing.spawn(check_process, arguments, nprocs=2)
