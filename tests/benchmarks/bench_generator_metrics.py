"""Seconds that the metrics of generators take beside decoding and feature networks."""

import time
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch

from disentangle.metrics.feature_networks import (
    random_features,
)
from disentangle.metrics.frechet_inception_distance import (
    FeatureMoments,
    frechet_inception_distance,
)
from disentangle.metrics.kernel_inception_distance import kernel_inception_distance
from disentangle.metrics.perceptual_path_length import perceptual_path_length
from disentangle.metrics.variation_predictability import variation_predictability

from .timing import print_table

FEATURES = 2_048  # of FID's Inception
POINTS = 4_000
SUBSETS = 5
VP_PAIRS, VP_EPOCHS = 160, 4


def measure(name: str, call: Callable[[], object], times: float = 1, unit: str = "") -> list[str]:
    """One run, as these take seconds: its wall-clock and processor time, and those of the whole."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return [name, *(f"{x:.1f}" for x in (wall, cpu, cpu * times)), unit]


def decode(z: torch.Tensor) -> torch.Tensor:
    """RGB images of 64 × 64 pixels."""
    return z[:, :3, None, None].tanh().expand(-1, 3, 64, 64)


def prior(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(n, 10, generator=generator)


def score_vp(pairs: int, epochs: int) -> object:
    return variation_predictability(
        decode, prior, pairs=pairs, test_ratio=0.5, epochs=epochs, seeds=[0]
    )


def main() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, POINTS, FEATURES)).astype(np.float32)
    a, b = FeatureMoments.of(x), FeatureMoments.of(y)
    vp_steps = VP_PAIRS // 2 / 32 * VP_EPOCHS
    score_vp(pairs=4, epochs=1)  # the first optimizer of a process loads half of PyTorch
    rows = [
        measure("moments of 1,000", lambda: FeatureMoments.of(x[:1_000]), 50, "50,000 points"),
        measure("FID of moments", lambda: frechet_inception_distance(a, b)),
        measure("scipy's sqrtm", lambda: scipy.linalg.sqrtm(a.covariance @ b.covariance)),
        measure(
            f"KID, {SUBSETS} subsets",
            lambda: kernel_inception_distance(x, y, subsets=SUBSETS),
            100 / SUBSETS,
            "100 subsets",
        ),
        measure(
            "PPL, 1,000 paths, L2",
            lambda: perceptual_path_length(
                decode, prior, lambda u, v: (u - v).square().flatten(1).sum(dim=1), samples=1_000
            ),
            10,
            "10,000 paths",
        ),
        measure("random features, 500", lambda: random_features()(torch.zeros(500, 3, 64, 64))),
        measure(
            f"VP, {vp_steps:.0f} steps",
            lambda: score_vp(VP_PAIRS, VP_EPOCHS),
            200 * 32 / vp_steps,
            "200 epochs of 32 steps",
        ),
    ]
    print_table(
        f"Metrics of generators, {FEATURES} features, 64 × 64 RGB: seconds",
        ["part", "wall", "processor", "whole", "whole is"],
        rows,
    )
