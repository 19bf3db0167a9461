"""How disentanglement is judged: one metric per file."""

from disentangle.metrics.activeness import ActivenessResult, activeness
from disentangle.metrics.factor_vae import FactorVaeResult, factor_vae_score
from disentangle.metrics.mig import MigResult, mig

__all__ = [
    "ActivenessResult",
    "FactorVaeResult",
    "MigResult",
    "activeness",
    "factor_vae_score",
    "mig",
]
