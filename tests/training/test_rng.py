import numpy as np
import torch

from disentangle.training import rng
from disentangle.training.rng import Purpose


def test_a_sample_draws_the_same_in_any_company():
    joint = rng.normal(3, Purpose.LATENT, 5, range(8), 4)
    shares = [rng.normal(3, Purpose.LATENT, 5, range(i, i + 2), 4) for i in (0, 2, 4, 6)]
    assert torch.equal(joint, torch.cat(shares))


def test_every_coordinate_gives_another_stream():
    streams = [
        rng.stream(seed, purpose, step, sample).integers(2**63)
        for seed in range(3)
        for purpose in Purpose
        for step in range(3)
        for sample in range(3)
    ]
    assert len(set(streams)) == len(streams)


def test_distributions():
    normal = rng.normal(0, Purpose.LATENT, 1, range(2000), 10).double()
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.03
    uniform = rng.uniform(0, Purpose.FLIP, 1, range(2000), 10).double()
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.01


def test_neighbouring_samples_are_not_correlated():
    rows = rng.normal(0, Purpose.LATENT, 1, range(100), 1000).numpy()
    correlations = np.corrcoef(rows)[~np.eye(100, dtype=bool)]
    assert np.abs(correlations).max() < 6 / np.sqrt(1000)
