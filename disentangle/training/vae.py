"""The task `vae`: an encoder and a decoder under the evidence lower bound."""

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.config import RunConfig, VAEObjective
from disentangle.training.batches import Batch
from disentangle.training.learner import Learner, Terms
from disentangle.training.losses import gaussian_divergence, reconstruction_loss
from disentangle.training.randomness import Purpose
from disentangle.training.task import Task


class VAETask(Task):
    """Trains a VAE on reconstruction plus β times divergence.

    Attributes:
        learner: Of the VAE.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator) -> None:
        assert isinstance(run.objective, VAEObjective)
        self.objective = run.objective
        self.parts = run.training.accumulation
        model = run.build_model().to(accelerator.device)
        self.learner = Learner(run, accelerator, model, treated=True)

    @property
    def exports(self) -> dict[str, ModelMixin]:
        """The VAE."""
        return {"model": self.learner.raw}

    def step(self, batch: Batch) -> Terms:
        """Trains on a batch and reports the terms of the loss."""
        return self.learner.descend(batch.split(self.parts), self._loss)

    def draw_samples(self, model: ModelMixin, latents: Tensor, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` for a sheet: given ones, their reconstructions, then new ones."""
        quarter = len(latents) // 4
        given = images[:quarter]
        made = model.decode(latents[: 2 * quarter])
        return torch.cat([given, model.decode(model.encode(given)), made])

    def _loss(self, part: Batch) -> tuple[Tensor, Terms]:
        noise = part.normal(Purpose.POSTERIOR, self.learner.raw.latent_dim)
        logits, mean, log_variance = self.learner.network(part.images, noise)
        reconstruction = reconstruction_loss(logits, part.images, self.objective.likelihood)
        divergence = gaussian_divergence(mean, log_variance).sum()
        loss = reconstruction + self.objective.beta * divergence
        terms = {"loss": loss, "loss/reconstruction": reconstruction, "loss/divergence": divergence}
        return loss, terms
