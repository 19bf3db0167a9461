"""What the task `vae` reports of the codes."""

import pytest
import torch
from accelerate import Accelerator
from torch import distributions

from disentangle.config.parse import parse_run
from disentangle.losses.active_units import code_terms
from disentangle.runs.metrics_log import read_lines
from disentangle.training.batches import Batch
from disentangle.training.trainer import Trainer
from disentangle.training.vae.task import VAETask

NAMES = {*(f"kl/{j}" for j in range(10)), "active_units"}


def test_the_divergence_of_each_code():
    mean, log_variance = torch.randn(2, 50, 4)
    posterior = distributions.Normal(mean, (log_variance / 2).exp())
    expected = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0)).mean(0)
    terms = code_terms(mean, log_variance)
    found = torch.stack([terms[f"kl/{j}"] for j in range(4)])
    assert torch.allclose(found, expected, atol=1e-5)
    assert len(terms) == 5
    assert all(term.shape == () for term in terms.values())


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_active_units(offset):
    signs = torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    stds = torch.tensor([0.0, 0.099, 0.101, 2.0])  # the threshold is a variance of 0.01
    assert code_terms(offset + stds * signs, torch.zeros(100, 4))["active_units"] == 2


def test_no_code_is_active_in_a_batch_of_one():
    assert code_terms(torch.randn(1, 4), torch.zeros(1, 4))["active_units"] == 0


def make_task(tiny_vae, *options):
    run, _ = parse_run([*tiny_vae, *options])
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=run.training.accumulation)
    return VAETask(run, accelerator, run.build_data())


def make_batch(step):
    images = 100 * torch.randn(8, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    return Batch(images, step=step, samples=range(8), seed=0)


def test_codes_are_described_when_a_line_is_due(tiny_vae):
    task = make_task(tiny_vae)  # a line every 2 steps
    assert task.step(make_batch(1)).keys().isdisjoint(NAMES)
    terms = task.step(make_batch(2))
    assert terms.keys() >= NAMES
    total = sum(terms[f"kl/{j}"] for j in range(10))
    assert torch.isclose(total, terms["loss/divergence"], rtol=1e-4)


def test_parts_of_a_batch_are_described_as_the_whole(tiny_vae):
    """Of parts of one image each, by themselves, no code would be active."""
    whole, parts = (
        make_task(tiny_vae, "--training.accumulation", accumulation) for accumulation in ("1", "8")
    )
    parts.learner.raw.load_state_dict(whole.learner.raw.state_dict())
    expected, found = whole.step(make_batch(2)), parts.step(make_batch(2))
    assert expected["active_units"] > 0
    for name in NAMES:
        assert torch.isclose(expected[name], found[name], atol=1e-4), name


def test_a_description_does_not_wait_for_a_tensor(count_scalars):
    mean, log_variance = torch.randn(2, 8, 10)
    with count_scalars() as count:
        code_terms(mean, log_variance)
    assert count.calls == 0


def test_lines_of_a_run(tiny_vae):
    run, _ = parse_run(tiny_vae)
    Trainer(run).train()
    lines = read_lines(run.output / "metrics.jsonl")
    assert [line["step"] for line in lines if line.keys() >= NAMES] == [2, 4, 6]
    assert all(line["active_units"] % 1 == 0 for line in lines if "active_units" in line)
