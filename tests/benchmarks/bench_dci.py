"""DCI beside one `GradientBoostingClassifier` after the other, and the histogram's deviation.

Speed at 10,000 points takes minutes: the factors have a quarter of dSprites' values. How far
`histogram_dci` is from `dci` is measured on representations that were not looked at when it was
designed (number of bins, how they are cut, ties). Those that were: linear mixtures with noise,
noisy codes beside noise, noisy codes and their negatives, perfect codes, and factors in clusters.
The held-out ones are listed in `held_out`. To keep the time down they have 2,000 training points.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingClassifier

from disentangle.data import RenderedSprites
from disentangle.metrics.dci import DciResult, dci, histogram_dci

from .timing import print_table

Array = np.ndarray
POINTS, CODES = 10_000, 10
SIZES = np.array([2, 2, 10, 8, 8])
SPRITE_SIZES = np.array([3, 6, 40, 32, 32])
STRIDES = np.array([1, 1, 5, 4, 4])  # of the values that are used of each of the sprites' factors


def one_after_the_other(codes: Array, factors: Array, test_codes: Array) -> Array:
    """Importances, as in disentanglement_lib."""
    columns = []
    for labels in factors.T:
        model = GradientBoostingClassifier(random_state=0).fit(codes, labels)
        model.predict(codes)
        model.predict(test_codes)
        columns.append(model.feature_importances_)
    return np.stack(columns, axis=1)


def make_mixture(sizes: Array, seed: int) -> tuple[Array, Array, Array, Array]:
    """Training and test codes and factors; the codes are linear in the factors, with noise."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, sizes, size=(POINTS * 3 // 2, len(sizes)))
    deviations = np.sqrt((sizes**2 - 1) / 12)
    codes = factors / deviations @ rng.normal(size=(len(sizes), CODES))
    codes += 0.3 * rng.normal(size=codes.shape)
    return codes[:POINTS], factors[:POINTS], codes[POINTS:], factors[POINTS:]


def standardise(values: Array) -> Array:
    return (values - values.mean(axis=0)) / values.std(axis=0)


def held_out(points: int) -> Iterator[tuple[str, Array, Array]]:
    """Names, codes and factors of the representations that the design did not see."""
    rng = np.random.default_rng(2024)
    numbers = rng.integers(0, SPRITE_SIZES // STRIDES, size=(points, len(STRIDES)))
    images = RenderedSprites(image_size=32).render(numbers * STRIDES)  # (N, 1, H, W)
    pixels = images.flatten(1).double().numpy() / 255  # (N, H·W)
    pixels -= pixels.mean(axis=0)
    basis = np.linalg.svd(pixels, full_matrices=False)[2]
    yield "principal components of sprites", pixels @ basis[:CODES].T, numbers

    hidden = np.maximum(pixels @ rng.normal(size=(pixels.shape[1], 64)), 0)
    yield "random network on sprites", hidden @ rng.normal(size=(64, CODES)), numbers

    values, half = standardise(numbers), np.sqrt(0.5)
    turned = values @ np.kron(np.eye(3), [[half, half], [-half, half]])[:5, :5]
    noise = rng.normal(size=(points, 5))
    yield "pairs turned by 45 degrees, noise", np.concatenate([turned, noise], axis=1), numbers

    angles = 2 * np.pi * numbers / (SPRITE_SIZES // STRIDES)
    circles = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    yield "circles", circles + 0.3 * rng.normal(size=circles.shape), numbers

    sparse = rng.normal(size=(5, CODES)) * (rng.random((5, CODES)) < 0.3)
    tails = (values @ sparse) ** 3 + 0.5 * rng.standard_t(2, size=(points, CODES))
    yield "sparse, cubed, heavy tails", tails, numbers

    yield "noise", rng.normal(size=(points, CODES)), numbers

    # Drawn from a stream of its own, after bins were made to end between clusters.
    rng = np.random.default_rng(2025)
    warped = np.tanh(values) + 0.02 * rng.normal(size=values.shape)
    pairs = warped[:, [0, 1, 2, 3]] + warped[:, [1, 2, 3, 4]]
    yield "clusters, warped, and sums of two", np.concatenate([warped, pairs], axis=1), numbers


def seconds_of(function: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor seconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - processor


def measure_speed() -> None:
    x, y, x_test, y_test = make_mixture(SIZES, seed=0)
    large = make_mixture(SPRITE_SIZES, seed=0)
    ways: dict[str, Callable[[], object]] = {
        "one classifier after the other": lambda: one_after_the_other(x, y, x_test),
        "dci": lambda: dci(x, y, x_test, y_test),
        "histogram_dci": lambda: histogram_dci(x, y, x_test, y_test),
        "histogram_dci, dSprites' factors": lambda: histogram_dci(*large),
    }
    rows, plain = [], 0.0
    for name, way in ways.items():
        wall, processor = seconds_of(way)
        plain = plain or wall
        ratio = "" if way is ways["histogram_dci, dSprites' factors"] else f"{plain / wall:.1f}"
        rows.append([name, f"{wall:.1f}", f"{processor:.1f}", ratio])
    print_table(
        f"DCI, {POINTS:,} + {POINTS // 2:,} points, {CODES} codes, factors with "
        f"{', '.join(map(str, SIZES))} values",
        ["", "seconds", "processor", "ratio"],
        rows,
    )


def measure_deviations(points: int) -> None:
    """Prints the held-out scores of `dci` and how far those of `histogram_dci` are from them."""
    rows = []
    for name, codes, factors in held_out(points * 3 // 2):
        split = codes[:points], factors[:points], codes[points:], factors[points:]
        exact, fast = dci(*split), histogram_dci(*split)
        pairs = zip(scores_of(exact), scores_of(fast), strict=True)
        cells = [f"{a:.3f} {b - a:+.3f}" for a, b in pairs]
        rows.append([name, *cells, f"{np.abs(fast.importance - exact.importance).max():.3f}"])
    print_table(
        f"dci, and histogram_dci minus dci, {points:,} training points, held out",
        ["", "disentanglement", "completeness", "informativeness", "largest importance"],
        rows,
    )


def scores_of(result: DciResult) -> tuple[float, float, float]:
    return result.score, result.completeness, result.informativeness


def main() -> None:
    torch.manual_seed(0)
    measure_speed()
    measure_deviations(2_000)
