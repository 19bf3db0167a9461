"""What a kind of VAE adds to the reconstruction loss."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from disentangle.losses.elbo import gaussian_divergence
from disentangle.training.batches import Batch
from disentangle.training.learner import Learner, Terms


class Posterior(NamedTuple):
    """What a batch is coded as.

    Attributes:
        mean: `(N, K)`.
        log_variance: `(N, K)`.
        z: A sample of each posterior, `(N, K)`.
    """

    mean: Tensor
    log_variance: Tensor
    z: Tensor

    def divergence(self) -> Tensor:
        """From the prior, in nats, averaged over the batch."""
        return gaussian_divergence(self.mean, self.log_variance).sum()


class Penalty(ABC):
    """What is added to the reconstruction loss, and what is trained beside the VAE."""

    @abstractmethod
    def loss(self, part: Batch, posterior: Posterior) -> tuple[Tensor, Terms]:
        """The penalty of a part of a batch, and its terms to report."""

    def step(self, parts: list[Batch]) -> Terms:
        """Trains what there is beside the VAE, once its step is made."""
        return {}

    @property
    def learners(self) -> list[Learner]:
        """Of what is trained beside the VAE."""
        return []
