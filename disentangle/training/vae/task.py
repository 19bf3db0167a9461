"""The task `vae`: an encoder and a decoder under the evidence lower bound, or a change of it."""

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.config import RunConfig, VAEObjective
from disentangle.models.modes import evaluation_mode
from disentangle.models.subspace_vae import sample_posterior
from disentangle.training.batches import Batch
from disentangle.training.learner import Learner, Terms
from disentangle.training.randomness import Purpose
from disentangle.training.task import Task
from disentangle.training.vae.losses import reconstruction_loss
from disentangle.training.vae.objectives import build_penalty
from disentangle.training.vae.penalty import Posterior


class VAETask(Task):
    """Trains a VAE on reconstruction plus the penalty of its kind.

    Attributes:
        learner: Of the VAE.
        penalty: What is added to the reconstruction loss, and what is trained for it.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator) -> None:
        assert isinstance(run.objective, VAEObjective)
        self.objective = run.objective
        self.parts = run.training.accumulation
        model = run.build_model().to(accelerator.device)
        self.learner = Learner(run, accelerator, model, treated=True)
        self.penalty = build_penalty(run, accelerator, model.latent_dim)

    @property
    def exports(self) -> dict[str, ModelMixin]:
        """The VAE."""
        return {"model": self.learner.raw}

    def step(self, batch: Batch) -> Terms:
        """Trains on a batch and reports the terms of the loss."""
        parts = batch.split(self.parts)
        return self.learner.descend(parts, self._loss) | self.penalty.step(parts)

    def draw_samples(self, model: ModelMixin, latents: Tensor, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` for a sheet: given ones, their reconstructions, then new ones."""
        quarter = len(latents) // 4
        given = images[:quarter]
        with evaluation_mode(model):
            made = model.decode(latents[: 2 * quarter])
            return torch.cat([given, model.decode(model.encode(given)), made])

    def _loss(self, part: Batch) -> tuple[Tensor, Terms]:
        noise = part.normal(Purpose.POSTERIOR, self.learner.raw.latent_dim)
        logits, mean, log_variance = self.learner.network(part.images, noise)
        reconstruction = reconstruction_loss(logits, part.images, self.objective.likelihood)
        posterior = Posterior(mean, log_variance, sample_posterior(mean, log_variance, noise))
        penalty, terms = self.penalty.loss(part, posterior)
        loss = reconstruction + penalty
        return loss, {"loss": loss, "loss/reconstruction": reconstruction} | terms
