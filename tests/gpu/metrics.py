"""Compare metrics of tensors on the device with metrics of arrays or of tensors on the CPU.

To add a metric, add an entry to one of the tables.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disentangle.metrics import (
    accuracy,
    activeness,
    beta_vae_score,
    dci,
    explicitness,
    extract_features,
    factor_vae_score,
    fit_encoder,
    frechet_inception_distance,
    gaussian_total_correlation,
    histogram_dci,
    infomec,
    irs,
    kernel_inception_distance,
    mig,
    modularity,
    mutual_information_score,
    perceptual_path_length,
    random_features,
    sap,
    squared_feature_distance,
    udr,
    variation_predictability,
    wasserstein_correlation,
)
from disentangle.models import EigenGAN

from .harness import Checks, Setting, check_error, full_precision, require

SIZES = (3, 4, 5)  # values of each factor
POINTS = 400
Move = Callable[[np.ndarray], Any]

# Each takes a function that converts the arrays before the metric sees them.
OF_CODES: dict[str, Callable[[Move], Any]] = {
    "mig": lambda move: mig(*moved(move)),
    "sap": lambda move: sap(*moved(move), *moved(move, seed=1)),
    "modularity": lambda move: modularity(*moved(move)),
    "explicitness": lambda move: explicitness(*moved(move), *moved(move, seed=1)),
    "irs": lambda move: irs(*moved(move)),
    "infomec": lambda move: infomec(*moved(move)),
    "histogram_dci": lambda move: histogram_dci(*moved(move), *moved(move, seed=1)),
    "dci": lambda move: dci(*moved(move, points=100), *moved(move, seed=1, points=50), workers=1),
    "gaussian_total_correlation": lambda move: gaussian_total_correlation(moved(move)[0]),
    "wasserstein_correlation": lambda move: wasserstein_correlation(moved(move)[0]),
    "mutual_information_score": lambda move: mutual_information_score(moved(move)[0]),
    "udr": lambda move: udr([moved(move)[0], moved(move, noise=0.3)[0]]),
    "factor_vae_score": lambda move: factor_vae_score(
        lambda factors: move(codes_of(factors)),
        SIZES,
        train_points=100,
        test_points=50,
        variance_points=500,
    ),
    "beta_vae_score": lambda move: beta_vae_score(
        lambda factors: move(codes_of(factors)), SIZES, train_points=100, test_points=50
    ),
    "accuracy": lambda move: accuracy(*moved(move, labels=True)),
    "frechet_inception_distance": lambda move: frechet_inception_distance(
        moved(move)[0], moved(move, seed=1)[0]
    ),
    "kernel_inception_distance": lambda move: kernel_inception_distance(
        moved(move)[0], moved(move, seed=1)[0], subsets=3, subset_size=100
    ),
}

# Each takes a generator and its device.
OF_GENERATORS: dict[str, Callable[[EigenGAN, torch.device], float]] = {
    "activeness": lambda model, device: (
        activeness(
            model.decode, latents(model, 8).to(device), torch.eye(model.latent_dim)[-6:]
        ).score
    ),
    "perceptual_path_length": lambda model, device: (
        perceptual_path_length(
            lambda z: model.decode(z.to(device)),
            partial(latents, model),
            squared_feature_distance(random_features()).to(device),
            samples=16,
            epsilon=0.1,
        ).score
    ),
    "frechet_inception_distance, features of images": lambda model, device: (
        frechet_inception_distance(*(features(model, device, seed) for seed in (0, 1))).score
    ),
}
# Each fits a network on a device to images from which the latents can be read.
FITTED: dict[str, Callable[[torch.device], float]] = {
    "variation_predictability": lambda device: (
        variation_predictability(
            partial(draw_stripes, device=device),
            draw_latents,
            pairs=200,
            test_ratio=0.5,
            epochs=8,
            width=4,
            seeds=[0],
        ).score
    ),
    "fit_encoder": lambda device: (
        fit_encoder(
            partial(draw_stripes, device=device),
            draw_latents,
            steps=100,
            batch_size=32,
            channels=4,
            held_out=100,
            device=device,
        ).score
    ),
}


def checks(setting: Setting) -> Checks:
    """Yield the checks of this part."""
    for name, metric in OF_CODES.items():
        yield f"{name} of tensors on the device", partial(check_codes, metric, setting.device)
    for name, metric in OF_GENERATORS.items():
        yield f"{name} of a generator", partial(check_generator, metric, setting.device)
    for name, fit in FITTED.items():
        yield f"{name}, fitted on the device", partial(check_fitted, fit, setting.device)


def codes_of(factors: np.ndarray, noise: float = 0.2) -> np.ndarray:
    """Compute noisy, partly mixed float32 codes `(N, K)` from factors `(N, F)`."""
    rng = np.random.default_rng(7)
    mixing = np.eye(len(SIZES), 4) + 0.2 * rng.normal(size=(len(SIZES), 4))
    codes = factors @ mixing + noise * rng.normal(size=(len(factors), 4))
    return codes.astype(np.float32)


def moved(
    move: Move, *, seed: int = 0, noise: float = 0.2, points: int = POINTS, labels: bool = False
) -> tuple[Any, Any]:
    """Sample codes and factors, or the labels of one factor, and convert them."""
    factors = np.random.default_rng(seed).integers(0, SIZES, size=(points, len(SIZES)))
    codes = codes_of(factors, noise)
    return move(codes), move(factors[:, 0] if labels else factors)


def check_codes(metric: Callable[[Move], Any], device: torch.device) -> str:
    """Compare the scores of arrays and of tensors on the device."""
    expected = metric(lambda array: array).score
    got = metric(lambda array: torch.from_numpy(array).to(device)).score
    return check_score(got, expected, 1e-12)


def check_score(got: float, expected: float, tolerance: float) -> str:
    """Compare two scores."""
    pair = (torch.tensor(score, dtype=torch.float64) for score in (got, expected))
    return f"score {got:.4g}, error {check_error('score', *pair, tolerance)}"


def latents(model: EigenGAN, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Sample latents that do not depend on the device."""
    return model.sample_latents(n, generator or torch.Generator().manual_seed(0))


def features(model: EigenGAN, device: torch.device, seed: int) -> Any:
    """Extract features of generated images on the device."""
    z = latents(model, 100, torch.Generator().manual_seed(seed))
    images = model.decode(z.to(device))
    return extract_features(random_features(dim=8).to(device), images.split(50))


def check_generator(metric: Callable[[EigenGAN, torch.device], float], device: torch.device) -> str:
    """Compare the scores of one generator on the CPU and on the device."""
    torch.manual_seed(5)
    model = EigenGAN(image_size=32, noise_dim=4, base_channels=4, image_channels=1).eval()
    expected = metric(model, torch.device("cpu"))
    with full_precision():
        got = metric(model.to(device), device)
    return check_score(got, expected, 1e-2)


def draw_stripes(z: Tensor, device: torch.device) -> Tensor:
    """Draw images `(N, 1, 16, 16)` of two latents, the contrasts of two patterns of stripes."""
    stripes = torch.linspace(0, 40, 256, device=device).sin().view(16, 16)
    patterns = torch.stack([stripes, stripes.T]).flatten(1)  # (2, 256)
    return (0.5 * z.to(device).tanh() @ patterns).view(-1, 1, 16, 16)


def draw_latents(n: int, generator: torch.Generator) -> Tensor:
    """Sample two latents for `draw_stripes`."""
    return torch.randn(n, 2, generator=generator)


def check_fitted(fit: Callable[[torch.device], float], device: torch.device) -> str:
    """Check that a fitted network reads the latents."""
    score = fit(device)
    require(score > 0.8, "a score above 0.8", f"{score:.3f}")
    return f"score {score:.4g}"
