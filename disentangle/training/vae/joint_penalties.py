"""Penalties of a batch as a whole: annealed VAE, β-TCVAE, DIP-VAE."""

from abc import abstractmethod

import torch
from accelerate import Accelerator
from torch import Tensor

from disentangle.config import RunConfig, VAEObjective
from disentangle.distributed.all_gather import join_processes, share_loss
from disentangle.losses.beta_tcvae import stratified_weights, total_correlation
from disentangle.losses.dip_vae import code_covariance, covariance_penalty
from disentangle.training.batches import Batch
from disentangle.training.learner import Terms
from disentangle.training.vae.penalty import Penalty, Posterior


class JointPenalty(Penalty):
    """Penalty that is not a mean over samples and takes the joint batch of all processes.

    Args:
        run: The run.
        accelerator: Accelerator of the run.
        data_size: Number of images of the data set.

    Raises:
        ValueError: If gradients are accumulated, or the batch is too small.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator, data_size: int) -> None:
        assert isinstance(run.objective, VAEObjective)
        self.objective, self.accelerator = run.objective, accelerator
        self.data_size = data_size
        if run.training.accumulation > 1:
            raise ValueError(
                f"objective.kind {self.objective.kind!r} needs the batch as a whole: "
                f"training.accumulation must be 1, got {run.training.accumulation}"
            )

    def loss(self, part: Batch, posterior: Posterior) -> tuple[Tensor, Terms]:
        """Return the penalty of the codes of all processes, the same in each."""
        joint = Posterior(*(join_processes(self.accelerator, values) for values in posterior))
        penalty, terms = self.compute(joint, part.step)
        return share_loss(self.accelerator, penalty), terms

    @abstractmethod
    def compute(self, posterior: Posterior, step: int) -> tuple[Tensor, Terms]:
        """Return the penalty of a joint batch, and its terms to report."""


class CapacityPenalty(JointPenalty):
    """Annealed VAE: `γ |KL − C|` with a growing capacity `C`."""

    def compute(self, posterior: Posterior, step: int) -> tuple[Tensor, Terms]:
        """Return the weighted distance of the KL divergence from the capacity of the step."""
        divergence = posterior.divergence()
        capacity = annealed_capacity(step, self.objective.capacity, self.objective.capacity_steps)
        penalty = self.objective.capacity_weight * (divergence - capacity).abs()
        terms = {"loss/divergence": divergence, "capacity": torch.full_like(divergence, capacity)}
        return penalty, terms


class TotalCorrelationPenalty(JointPenalty):
    """β-TCVAE with `α = γ = 1`: `KL + (β − 1) TC`, with TC estimated from the batch."""

    def __init__(self, run: RunConfig, accelerator: Accelerator, data_size: int) -> None:
        super().__init__(run, accelerator, data_size)
        if self.objective.total_correlation_estimator == "stratified":
            stratified_weights(run.training.batch_size, data_size)  # raises

    def compute(self, posterior: Posterior, step: int) -> tuple[Tensor, Terms]:
        """Return the KL divergence with its part, the total correlation, weighted by `β`."""
        mean, log_variance, z = posterior
        stratified = self.objective.total_correlation_estimator == "stratified"
        data_size = self.data_size if stratified else None
        correlation = total_correlation(z, mean, log_variance, data_size=data_size)
        divergence = posterior.divergence()
        terms = {"loss/divergence": divergence, "loss/total_correlation": correlation}
        return divergence + (self.objective.total_correlation_weight - 1) * correlation, terms


class CovariancePenalty(JointPenalty):
    """DIP-VAE I and II: `KL` plus the weighted distance of the codes' covariance from identity."""

    def compute(self, posterior: Posterior, step: int) -> tuple[Tensor, Terms]:
        """Return the KL divergence plus the weighted penalty."""
        first = self.objective.kind == "dip_1"
        penalty = covariance_penalty(
            code_covariance(posterior.mean, None if first else posterior.log_variance),
            off_diagonal_weight=self.objective.off_diagonal_weight,
            diagonal_weight=self.objective.diagonal_weight,
        )
        divergence = posterior.divergence()
        return divergence + penalty, {"loss/divergence": divergence, "loss/covariance": penalty}


def annealed_capacity(step: int, maximum: float, steps: int) -> float:
    """Return the capacity `C` of a step, in nats, which grows linearly and is then constant.

    Source: Burgess et al., "Understanding disentangling in β-VAE", 2018,
    https://arxiv.org/abs/1804.03599, eq. 8.

    Args:
        step: Optimizer step, from 1, where the capacity is 0.
        maximum: Final capacity, in nats.
        steps: Number of steps in which the capacity grows.

    Examples:
        >>> [annealed_capacity(step, maximum=25.0, steps=100) for step in (1, 51, 101, 1000)]
        [0.0, 12.5, 25.0, 25.0]
    """
    return maximum * min(1.0, (step - 1) / steps)
