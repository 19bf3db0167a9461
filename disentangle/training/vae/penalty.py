"""Interface of the penalty that a kind of VAE adds to the reconstruction loss."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from disentangle.losses.elbo import gaussian_divergence
from disentangle.training.batches import Batch
from disentangle.training.learner import Learner, Terms


class Posterior(NamedTuple):
    """Approximate posterior of the codes of a batch.

    Attributes:
        mean: Means, `(N, K)`.
        log_variance: Logarithms of the variances, `(N, K)`.
        z: Sample from each posterior, `(N, K)`.
    """

    mean: Tensor
    log_variance: Tensor
    z: Tensor

    def divergence(self) -> Tensor:
        """Return the KL divergence from the prior, in nats, averaged over the batch."""
        return gaussian_divergence(self.mean, self.log_variance).sum()


class Penalty(ABC):
    """Term added to the reconstruction loss, and the networks trained for it."""

    @abstractmethod
    def loss(self, part: Batch, posterior: Posterior) -> tuple[Tensor, Terms]:
        """Return the penalty of a part of a batch, and its terms to report."""

    def step(self, parts: list[Batch]) -> Terms:
        """Train the additional networks, after the VAE's step, and return their terms."""
        return {}

    @property
    def learners(self) -> list[Learner]:
        """Learners of the additional networks."""
        return []
