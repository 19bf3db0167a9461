from itertools import pairwise

import pytest
import torch
from torch.optim import lr_scheduler

from disentangle.config import OptimizerConfig

STEPS = 40


def rates_of(make_scheduler):
    """The rate of each step by a scheduler of torch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("options", "make_scheduler"),
    [
        ({}, lambda o: lr_scheduler.ConstantLR(o, factor=1)),
        ({"schedule": "linear"}, lambda o: lr_scheduler.LinearLR(o, 1, 0, STEPS)),
        ({"schedule": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
        ({"schedule": "step", "decay_every": 0.25}, lambda o: lr_scheduler.StepLR(o, 10)),
        (
            {"schedule": "multi_step", "decay_at": (0.5, 0.75), "decay_factor": 0.2},
            lambda o: lr_scheduler.MultiStepLR(o, [20, 30], gamma=0.2),
        ),
    ],
)
def test_schedules_are_those_of_torch(options, make_scheduler):
    config = OptimizerConfig(lr=0.4, **options)
    ours = [config.rate(step, STEPS) for step in range(1, STEPS + 1)]
    assert ours == pytest.approx(rates_of(make_scheduler))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_fall_that_starts_later(schedule):
    config = OptimizerConfig(lr=1.0, schedule=schedule, decay_from=0.5)
    rates = [config.rate(step, STEPS) for step in range(1, STEPS + 1)]
    assert rates[:21] == [1.0] * 21
    assert all(a > b > 0 for a, b in pairwise(rates[20:]))


def test_warm_up():
    config = OptimizerConfig(lr=1.0, warmup=4, schedule="multi_step", decay_at=(0.5,))
    assert [config.rate(step, STEPS) for step in (1, 2, 4, 5)] == [0.25, 0.5, 1, 1]
    assert config.rate(21, STEPS) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0}, "optimizer.lr must be positive, got 0"),
        ({"weight_decay": -1e-4}, "optimizer.weight_decay must not be negative, got -0.0001"),
        ({"betas": (0.5, 1.0)}, r"optimizer.betas must lie in \[0, 1\), got \(0.5, 1.0\)"),
        (
            {"kind": "sgd", "momentum": 1.5},
            r"optimizer.momentum must lie in \[0, 1\), got 1.5",
        ),
        ({"momentum": 0.5}, "optimizer.momentum requires optimizer.kind sgd, got adam"),
        (
            {"kind": "sgd", "betas": (0.5, 0.9)},
            "optimizer.betas requires optimizer.kind adam or adamw, got sgd",
        ),
        (
            {"decay_from": 0.5},
            "optimizer.decay_from requires optimizer.schedule linear or cosine, got constant",
        ),
        (
            {"schedule": "multi_step", "decay_at": (0.5, 2)},
            r"optimizer.decay_at must lie in \[0, 1\], got \(0.5, 2\)",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**options)
