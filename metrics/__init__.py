"""Metrics of disentanglement, one per file."""

# Python started in the root of a checkout could import this folder under a second name.
if __name__ != "disentangle.metrics":
    raise ImportError(f"import disentangle.metrics, not {__name__}: it would be a second copy")

from disentangle.metrics.accuracy import AccuracyResult, accuracy
from disentangle.metrics.activeness import ActivenessResult, activeness
from disentangle.metrics.beta_vae import BetaVaeResult, beta_vae_score
from disentangle.metrics.dci import DciResult, dci, histogram_dci
from disentangle.metrics.explicitness import ExplicitnessResult, explicitness
from disentangle.metrics.factor_vae import FactorVaeResult, factor_vae_score
from disentangle.metrics.feature_networks import (
    load_fid_inception,
    load_lpips,
    load_torchvision_features,
    random_features,
    squared_feature_distance,
)
from disentangle.metrics.features import (
    Features,
    extract_features,
)
from disentangle.metrics.fitted_encoder import FittedEncoder, fit_encoder
from disentangle.metrics.frechet_inception_distance import (
    FeatureMoments,
    FrechetResult,
    frechet_inception_distance,
)
from disentangle.metrics.gaussian_total_correlation import (
    GaussianTotalCorrelationResult,
    gaussian_total_correlation,
)
from disentangle.metrics.infomec import InfoMecResult, infomec
from disentangle.metrics.irs import IrsResult, irs
from disentangle.metrics.kernel_inception_distance import KernelResult, kernel_inception_distance
from disentangle.metrics.mig import MigResult, mig
from disentangle.metrics.modularity import ModularityResult, modularity
from disentangle.metrics.mutual_information_score import (
    MutualInformationScoreResult,
    mutual_information_score,
)
from disentangle.metrics.perceptual_path_length import PathLengthResult, perceptual_path_length
from disentangle.metrics.sap import SapResult, sap
from disentangle.metrics.udr import UdrResult, udr
from disentangle.metrics.variation_predictability import (
    VariationPredictabilityResult,
    variation_predictability,
)
from disentangle.metrics.wasserstein_correlation import (
    WassersteinCorrelationResult,
    wasserstein_correlation,
)

__all__ = [
    "AccuracyResult",
    "ActivenessResult",
    "BetaVaeResult",
    "DciResult",
    "ExplicitnessResult",
    "FactorVaeResult",
    "FeatureMoments",
    "Features",
    "FittedEncoder",
    "FrechetResult",
    "GaussianTotalCorrelationResult",
    "InfoMecResult",
    "IrsResult",
    "KernelResult",
    "MigResult",
    "ModularityResult",
    "MutualInformationScoreResult",
    "PathLengthResult",
    "SapResult",
    "UdrResult",
    "VariationPredictabilityResult",
    "WassersteinCorrelationResult",
    "accuracy",
    "activeness",
    "beta_vae_score",
    "dci",
    "explicitness",
    "extract_features",
    "factor_vae_score",
    "fit_encoder",
    "frechet_inception_distance",
    "gaussian_total_correlation",
    "histogram_dci",
    "infomec",
    "irs",
    "kernel_inception_distance",
    "load_fid_inception",
    "load_lpips",
    "load_torchvision_features",
    "mig",
    "modularity",
    "mutual_information_score",
    "perceptual_path_length",
    "random_features",
    "sap",
    "squared_feature_distance",
    "udr",
    "variation_predictability",
    "wasserstein_correlation",
]
