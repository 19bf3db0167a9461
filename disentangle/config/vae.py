"""The section `objective` of the task `vae`."""

from dataclasses import dataclass
from typing import Literal

from disentangle.config.checks import check_fit, check_not_negative, check_positive

KINDS_OF_OPTION = {
    "beta": ("beta",),
    "capacity_weight": ("annealed",),
    "capacity": ("annealed",),
    "capacity_steps": ("annealed",),
    "density_ratio_weight": ("factor",),
    "discriminator_dim": ("factor",),
    "discriminator_depth": ("factor",),
    "discriminator_lr": ("factor",),
    "discriminator_betas": ("factor",),
    "total_correlation_weight": ("beta_tc",),
    "total_correlation_estimator": ("beta_tc",),
    "off_diagonal_weight": ("dip_1", "dip_2"),
    "diagonal_factor": ("dip_1", "dip_2"),
}


@dataclass(frozen=True)
class VAEObjective:
    """Evidence lower bound with a penalty for disentanglement.

    All kinds but `beta` and `factor` compute their loss on the whole batch over all processes, so
    they need `training.accumulation` 1. The defaults are those of disentanglement_lib.
    An option of another kind than the chosen one must be left at its default.

    Attributes:
        kind: `beta`-VAE, `annealed` VAE, FactorVAE, β-TCVAE, or DIP-VAE I or II.
        likelihood: Likelihood of a pixel given the code: Bernoulli, Gaussian of unit variance, or
            Laplace of unit scale. In a `latent_vae`, that of a latent: one of the last two.
        beta: With `beta`, weight of the KL divergence from the prior; 1 is the plain VAE.
        capacity_weight: With `annealed`, weight `γ` of `|KL − C|`.
        capacity: With `annealed`, final value of the capacity `C`, in nats.
        capacity_steps: With `annealed`, number of steps in which the capacity grows from 0.
        density_ratio_weight: With `factor`, weight `γ` of the total correlation.
        discriminator_dim: With `factor`, width of the discriminator's hidden layers.
        discriminator_depth: With `factor`, number of the discriminator's hidden layers.
        discriminator_lr: With `factor`, learning rate of the discriminator's Adam.
        discriminator_betas: With `factor`, betas of the discriminator's Adam.
        total_correlation_weight: With `beta_tc`, weight `β` of the total correlation, which is a
            part of the KL divergence; 1 is the plain VAE.
        total_correlation_estimator: With `beta_tc`, minibatch estimator, `weighted` or
            `stratified`.
        off_diagonal_weight: With `dip_1` and `dip_2`, weight `λ_od` of the covariances of codes.
        diagonal_factor: With `dip_1` and `dip_2`, ratio `λ_d / λ_od`, where `λ_d` is the weight of
            the variances; by default 10 for I and 1 for II.
    """

    kind: Literal["beta", "annealed", "factor", "beta_tc", "dip_1", "dip_2"] = "beta"
    likelihood: Literal["bernoulli", "gaussian", "laplace"] = "bernoulli"
    beta: float = 1.0
    capacity_weight: float = 1000.0
    capacity: float = 25.0
    capacity_steps: int = 100_000
    density_ratio_weight: float = 10.0
    discriminator_dim: int = 1000
    discriminator_depth: int = 6
    discriminator_lr: float = 1e-4
    discriminator_betas: tuple[float, float] = (0.5, 0.9)
    total_correlation_weight: float = 6.0
    total_correlation_estimator: Literal["weighted", "stratified"] = "weighted"
    off_diagonal_weight: float = 10.0
    diagonal_factor: float | None = None

    def __post_init__(self) -> None:
        check_fit(self, "kind", KINDS_OF_OPTION)
        check_not_negative(self, "beta", "capacity_weight", "capacity", "density_ratio_weight")
        check_not_negative(self, "total_correlation_weight", "off_diagonal_weight")
        check_not_negative(self, "diagonal_factor")
        check_positive(self, "capacity_steps", "discriminator_dim", "discriminator_depth")
        check_positive(self, "discriminator_lr")
        if not all(0 <= beta < 1 for beta in self.discriminator_betas):
            given = self.discriminator_betas
            raise ValueError(f"objective.discriminator_betas must lie in [0, 1), got {given}")

    @property
    def diagonal_weight(self) -> float:
        """Weight `λ_d` of the variances of the codes."""
        factor = self.diagonal_factor
        if factor is None:
            factor = 10.0 if self.kind == "dip_1" else 1.0
        return factor * self.off_diagonal_weight
