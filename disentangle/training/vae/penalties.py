"""Penalties of the kinds of VAE, by name."""

from accelerate import Accelerator
from torch import Tensor

from disentangle.config import RunConfig, VAEObjective
from disentangle.training.batches import Batch
from disentangle.training.learner import Terms
from disentangle.training.vae.factor_penalty import FactorPenalty
from disentangle.training.vae.joint_penalties import (
    CapacityPenalty,
    CovariancePenalty,
    JointPenalty,
    TotalCorrelationPenalty,
)
from disentangle.training.vae.penalty import Penalty, Posterior


class DivergencePenalty(Penalty):
    """β-VAE, https://openreview.net/forum?id=Sy2fzU9gl: `β KL`; with `β = 1` the plain VAE."""

    def __init__(self, objective: VAEObjective) -> None:
        self.beta = objective.beta

    def loss(self, part: Batch, posterior: Posterior) -> tuple[Tensor, Terms]:
        """Return the weighted KL divergence."""
        divergence = posterior.divergence()
        return self.beta * divergence, {"loss/divergence": divergence}


JOINT_PENALTIES: dict[str, type[JointPenalty]] = {
    "annealed": CapacityPenalty,
    "beta_tc": TotalCorrelationPenalty,
    "dip_1": CovariancePenalty,
    "dip_2": CovariancePenalty,
}

COMPARING = ("factor", "beta_tc", "dip_1", "dip_2")


def build_penalty(
    run: RunConfig, accelerator: Accelerator, code_dim: int, data_size: int
) -> Penalty:
    """Build the penalty of the kind of VAE that a run names.

    Args:
        run: The run.
        accelerator: Accelerator to prepare the networks of the penalty with.
        code_dim: Dimension of the codes.
        data_size: Number of images of the data set.

    Raises:
        ValueError: If the batch is too small; as `JointPenalty`.
    """
    assert isinstance(run.objective, VAEObjective)
    if run.objective.kind in COMPARING and run.training.batch_size < 2:
        raise ValueError(
            f"objective.kind {run.objective.kind!r} compares the images of a batch with each "
            "other, so that training.batch_size must be at least 2, got 1"
        )
    if run.objective.kind == "beta":
        return DivergencePenalty(run.objective)
    if run.objective.kind == "factor":
        return FactorPenalty(run, accelerator, code_dim)
    return JOINT_PENALTIES[run.objective.kind](run, accelerator, data_size)
