"""Metrics of many codes and of many points: seconds of one process, and the memory that it adds.

Codes are linear mixtures of dSprites' factors with noise; half as many test points. `dci` is left
out: it refuses the many codes, and the many points take it half a day.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from disentangle import metrics

from .timing import print_table

SIZES = np.array([3, 6, 40, 32, 32])  # of dSprites' factors
SHAPES = [(100, 3_000), (1_000_000, 10)]  # points, codes
SPLIT = ("sap", "explicitness", "histogram_dci")
FACTORS = ("mig", "modularity", "irs", "infomec")
CODES = ("wasserstein_correlation", "mutual_information_score", "gaussian_total_correlation")


def make_calls(points: int, codes: int) -> dict[str, Callable[[], Any]]:
    """Calls of all metrics by their names."""
    rng = np.random.default_rng(0)
    factors = rng.integers(0, SIZES, size=(points * 3 // 2, len(SIZES)))
    weights = (rng.normal(size=(len(SIZES), codes)) / SIZES[:, None]).astype(np.float32)
    x = factors @ weights + 0.1 * rng.normal(size=(len(factors), codes))
    split = x[:points], factors[:points], x[points:], factors[points:]
    other = x[:points, ::-1] + 0.1 * rng.normal(size=(points, codes))
    runs, noise = [split[0], other], [rng.normal(size=(points, codes)) for _ in range(2)]
    rounded = np.rint(4 * split[0])

    def encode(f: np.ndarray) -> np.ndarray:
        return f.astype(np.float32) @ weights

    return {
        **{name: partial(getattr(metrics, name), *split) for name in SPLIT},
        **{name: partial(getattr(metrics, name), *split[:2]) for name in FACTORS},
        **{name: partial(getattr(metrics, name), split[0]) for name in CODES},
        "sap, continuous": partial(metrics.sap, *split[:2], continuous_factors=True),
        "infomec, discrete": partial(metrics.infomec, rounded, split[1], discrete_codes=True),
        "udr, lasso, 2 runs": partial(metrics.udr, runs),
        "udr, lasso, 2 runs of noise": partial(metrics.udr, noise),
        "udr, spearman, 2 runs": partial(metrics.udr, runs, method="spearman"),
        "factor_vae_score": partial(metrics.factor_vae_score, encode, SIZES.tolist()),
        "beta_vae_score": partial(metrics.beta_vae_score, encode, SIZES.tolist()),
    }


def measure(name: str, points: int, codes: int) -> tuple[str, str]:
    """Wall-clock seconds and gigabytes beyond those of the input; or why it is refused."""
    call = make_calls(points, codes)[name]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        call()
    except ValueError as error:
        return "refused", str(error).partition(",")[0]
    seconds = time.perf_counter() - start
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return f"{seconds:.1f}", f"{added / 2**20:.1f}"


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    rows = []
    for name in make_calls(*(min(sizes) for sizes in zip(*SHAPES, strict=True))):
        cells: list[str] = []
        for shape in SHAPES:  # a process each, for the peak of its memory
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                cells += pool.submit(measure, name, *shape).result()
        rows.append([name, *cells])
    header = [f"{points:,} × {codes:,}" for points, codes in SHAPES]
    print_table(
        "Metrics of points × codes: seconds, gigabytes",
        ["metric", header[0], "", header[1], ""],
        rows,
    )
