"""The metrics at 10,000 points, 10 codes and 5 factors, beside the straightforward loops.

Both ways get the same arrays. Wall-clock seconds depend on what else runs; processor seconds, of
all threads together, less so.
"""

import time
from collections.abc import Callable

import numpy as np
from scipy.linalg import sqrtm
from scipy.stats import spearmanr
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.svm import LinearSVC

from disentangle.metrics.beta_vae import beta_vae_score
from disentangle.metrics.explicitness import explicitness
from disentangle.metrics.gaussian_total_correlation import gaussian_total_correlation
from disentangle.metrics.infomec import infomec
from disentangle.metrics.irs import irs
from disentangle.metrics.mig import mig
from disentangle.metrics.modularity import modularity
from disentangle.metrics.mutual_information_score import mutual_information_score
from disentangle.metrics.sap import sap
from disentangle.metrics.udr import udr
from disentangle.metrics.wasserstein_correlation import wasserstein_correlation

from .timing import print_table

Array = np.ndarray
SIZES = np.array([3, 6, 40, 32, 32])  # of dSprites' factors
POINTS, TEST_POINTS, CODES, RUNS = 10_000, 5_000, 10, 3
DEVIATIONS = np.sqrt((SIZES**2 - 1) / 12)


def make_data(seed: int) -> tuple[Array, Array, Array, Array]:
    """Training and test codes and factors; the codes are rotated factors and noise."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, SIZES, size=(POINTS + TEST_POINTS, len(SIZES)))
    mixing = rng.normal(size=(len(SIZES), CODES)) / np.sqrt(len(SIZES))
    codes = factors / DEVIATIONS @ mixing + 0.1 * rng.normal(size=(len(factors), CODES))
    return codes[:POINTS], factors[:POINTS], codes[POINTS:], factors[POINTS:]


def bin_one_by_one(codes: Array) -> list[Array]:
    return [np.digitize(x, np.histogram(x, 20)[1][:-1]) for x in codes.T]


def informations_one_by_one(codes: Array, factors: Array) -> Array:
    return np.array([[mutual_info_score(y, x) for y in factors.T] for x in bin_one_by_one(codes)])


def mig_one_by_one(codes: Array, factors: Array) -> float:
    ordered = np.sort(informations_one_by_one(codes, factors), axis=0)
    entropies = [mutual_info_score(y, y) for y in factors.T]
    return float(((ordered[-1] - ordered[-2]) / entropies).mean())


def sap_one_by_one(codes: Array, factors: Array, test_codes: Array, test_factors: Array) -> float:
    scores = np.zeros((codes.shape[1], factors.shape[1]))
    for k, f in np.ndindex(scores.shape):
        model = LinearSVC(C=0.01, class_weight="balanced").fit(codes[:, [k]], factors[:, f])
        scores[k, f] = model.score(test_codes[:, [k]], test_factors[:, f])
    ordered = np.sort(scores, axis=0)
    return float((ordered[-1] - ordered[-2]).mean())


def modularity_one_by_one(codes: Array, factors: Array) -> float:
    squares = informations_one_by_one(codes, factors) ** 2
    largest = squares.max(axis=1)
    rest = (squares.sum(axis=1) - largest) / (largest * (squares.shape[1] - 1))
    return float((1 - rest).mean())


def explicitness_one_by_one(
    codes: Array, factors: Array, test_codes: Array, test_factors: Array
) -> float:
    mean, std = codes.mean(axis=0), codes.std(axis=0)
    areas = []
    for y, y_test in zip(factors.T, test_factors.T, strict=True):
        model = LogisticRegression(max_iter=1_000).fit((codes - mean) / std, y)
        scores = model.predict_proba((test_codes - mean) / std)
        areas.append(roc_auc_score(y_test[:, None] == model.classes_, scores))
    return float(np.mean(areas))


def irs_one_by_one(codes: Array, factors: Array) -> float:
    largest = np.abs(codes - codes.mean(axis=0)).max(axis=0)
    robustness = np.zeros((codes.shape[1], factors.shape[1]))
    for f, values in enumerate(bin_one_by_one(factors)):
        groups = [codes[values == value] for value in np.unique(values)]
        distances = [np.quantile(np.abs(g - g.mean(axis=0)), 0.99, axis=0) for g in groups]
        robustness[:, f] = 1 - np.mean(distances, axis=0) / largest
    return float(np.average(robustness.max(axis=1), weights=largest))


def total_correlation_plainly(codes: Array) -> float:
    covariance = np.cov(codes, rowvar=False)
    return 0.5 * float(np.log(np.diag(covariance)).sum() - np.linalg.slogdet(covariance)[1])


def wasserstein_plainly(codes: Array) -> float:
    covariance = np.cov(codes, rowvar=False)
    root = sqrtm(covariance * np.diag(covariance)[:, None])
    return 2 * float(np.trace(covariance) - np.trace(root).real)


def mutual_information_one_by_one(codes: Array) -> float:
    binned = bin_one_by_one(codes)
    matrix = np.array([[mutual_info_score(a, b) for b in binned] for a in binned])
    return float((matrix.sum() - np.trace(matrix)) / (matrix.size - len(matrix)))


def udr_one_by_one(runs: list[Array], method: str) -> float:
    runs = [(run - run.mean(axis=0)) / run.std(axis=0) for run in runs]
    scores = np.full((len(runs), len(runs)), np.nan)
    for i, j in zip(*np.nonzero(1 - np.eye(len(runs))), strict=True):
        if method == "lasso":
            s = np.abs(Lasso(alpha=0.1).fit(runs[i], runs[j]).coef_.T)
        else:
            s = np.array([[abs(spearmanr(a, b)[0]) for b in runs[j].T] for a in runs[i].T])
        scores[i, j] = np.mean([(t.max(axis=0) ** 2 / t.sum(axis=0)).mean() for t in (s, s.T)])
    return float(np.nanmedian(scores, axis=0).mean())


def timed(function: Callable[[], object]) -> tuple[float, float, float]:
    """Wall-clock and processor seconds of the faster of two calls, and its score."""
    records = []
    for _ in range(2):
        wall, processor = time.perf_counter(), time.process_time()
        value = function()
        seconds = time.perf_counter() - wall, time.process_time() - processor
        records.append((*seconds, float(getattr(value, "score", value))))
    return min(records)


def measure(
    name: str, ours: Callable[[], object], plain: Callable[[], object] | None
) -> tuple[list[str], float]:
    """A row of the table, and our wall-clock seconds."""
    wall, processor, score = timed(ours)
    row = [name, f"{wall:.3f}", f"{processor:.3f}"]
    if plain is None:
        return [*row, "", "", "", f"{score:.4f}", ""], wall
    plain_wall, plain_processor, expected = timed(plain)
    row += [f"{plain_wall:.3f}", f"{plain_processor:.3f}", f"{plain_wall / wall:.1f}"]
    return [*row, f"{score:.4f}", f"{expected:.4f}"], wall


def make_runs(codes: Array) -> list[Array]:
    """Codes of several runs: the first ones, then rotations of them with noise."""
    rng = np.random.default_rng(1)
    turned = [codes @ np.linalg.qr(rng.normal(size=(CODES, CODES)))[0] for _ in range(RUNS - 1)]
    return [codes, *(run + 0.1 * rng.normal(size=run.shape) for run in turned)]


def main() -> None:
    data = x, y, *_ = make_data(0)
    runs = make_runs(x)
    together = {
        "mig": (lambda: mig(x, y), lambda: mig_one_by_one(x, y)),
        "sap": (lambda: sap(*data), lambda: sap_one_by_one(*data)),
        "modularity": (lambda: modularity(x, y), lambda: modularity_one_by_one(x, y)),
        "irs": (lambda: irs(x, y), lambda: irs_one_by_one(x, y)),
        "gaussian_total_correlation": (
            lambda: gaussian_total_correlation(x),
            lambda: total_correlation_plainly(x),
        ),
        "wasserstein_correlation": (
            lambda: wasserstein_correlation(x),
            lambda: wasserstein_plainly(x),
        ),
        "mutual_information_score": (
            lambda: mutual_information_score(x),
            lambda: mutual_information_one_by_one(x),
        ),
    }
    others = {
        "explicitness": (lambda: explicitness(*data), lambda: explicitness_one_by_one(*data)),
        "infomec": (lambda: infomec(x, y), None),
        f"udr, lasso, {RUNS} runs": (lambda: udr(runs), lambda: udr_one_by_one(runs, "lasso")),
        f"udr, spearman, {RUNS} runs": (
            lambda: udr(runs, method="spearman"),
            lambda: udr_one_by_one(runs, "spearman"),
        ),
        "beta_vae_score, codes at no cost": (
            lambda: beta_vae_score(lambda factors: factors / DEVIATIONS, SIZES.tolist()),
            None,
        ),
    }
    rows, seconds = zip(*(measure(name, *pair) for name, pair in together.items()), strict=True)
    more = [measure(name, *pair)[0] for name, pair in others.items()]
    print_table(
        f"Metrics at {POINTS:,} points, {CODES} codes, {len(SIZES)} factors; seconds on the clock "
        "and of the processor",
        ["metric", "ours", "processor", "loops", "processor", "ratio", "score", "loops'"],
        [*rows, [f"these {len(rows)} together", f"{sum(seconds):.3f}", *6 * [""]], *more],
    )
