"""The task `vae`: an encoder and a decoder trained on a variant of the evidence lower bound."""

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.config import RunConfig, VAEObjective
from disentangle.data import ImageData, scale_pixels
from disentangle.distributed.all_gather import join_processes
from disentangle.losses.active_units import code_terms
from disentangle.losses.elbo import error_loss, reconstruction_loss
from disentangle.models.evaluation_mode import evaluation_mode
from disentangle.models.latent_vae import LatentVAE, LatentVAEOutput
from disentangle.models.subspace_vae import VAEOutput, sample_posterior
from disentangle.training.batches import Batch, images_at_once
from disentangle.training.learner import Learner, Terms, frozen
from disentangle.training.rng import Purpose
from disentangle.training.task import Task
from disentangle.training.vae.penalties import build_penalty
from disentangle.training.vae.penalty import Posterior


class VAETask(Task):
    """Task that trains a VAE on reconstruction plus the penalty of its kind.

    Attributes:
        learner: Learner of the VAE.
        penalty: Penalty added to the reconstruction loss.

    Raises:
        ValueError: If the likelihood does not suit the model, or as `build_penalty`.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator, data: ImageData) -> None:
        assert isinstance(run.objective, VAEObjective)
        self.objective, self.accelerator, self.data = run.objective, accelerator, data
        self.parts, self.report_every = run.training.accumulation, run.training.log_every
        self.inferred: list[tuple[Tensor, Tensor]] = []
        model = run.build_model().to(accelerator.device)
        check_likelihood(model, run.objective.likelihood)
        if run.model.get("whiten_codes") and images_at_once(run, accelerator.num_processes) < 2:
            raise ValueError(
                "model.whiten_codes needs at least 2 images in each part of a batch, got 1: raise "
                "training.batch_size"
            )
        self.learner = Learner(run, accelerator, model, treated=True)
        self.penalty = build_penalty(run, accelerator, model.latent_dim, len(data))

    @property
    def learners(self) -> list[Learner]:
        """Learners of the VAE and of the networks of its penalty."""
        return [self.learner, *self.penalty.learners]

    @property
    def exports(self) -> dict[str, ModelMixin]:
        """The VAE."""
        return {"model": self.learner.raw}

    def step(self, batch: Batch) -> Terms:
        """Train on a batch, and return the terms of the loss and, if a line is due, the codes."""
        parts = batch.split(self.parts)
        self.inferred = []
        with frozen(self.penalty.learners):
            terms = self.learner.descend(parts, self._loss)
        terms |= self.penalty.step(parts)
        return terms if batch.step % self.report_every else terms | self._describe_codes()

    def draw_samples(self, model: ModelMixin, latents: Tensor) -> Tensor:
        """Return images `(N, C, H, W)` of the data set, their reconstructions, and samples."""
        quarter = len(latents) // 4
        spread = np.linspace(0, len(self.data) - 1, quarter, dtype=np.int64)
        given = scale_pixels(self.data.__getitems__(spread).to(latents.device))
        with evaluation_mode(model):
            made = model.decode(latents[: 2 * quarter])
            return torch.cat([given, model.decode(model.encode(given)), made])

    def _loss(self, part: Batch) -> tuple[Tensor, Terms]:
        noise = part.normal(Purpose.POSTERIOR, self.learner.raw.latent_dim)
        output = self.learner.network(part.images, noise)
        reconstruction = self._reconstruction(output, part.images)
        mean, log_variance = output.mean, output.log_variance
        self.inferred.append((mean.detach(), log_variance.detach()))
        posterior = Posterior(mean, log_variance, sample_posterior(mean, log_variance, noise))
        penalty, terms = self.penalty.loss(part, posterior)
        loss = reconstruction + penalty
        return loss, {"loss": loss, "loss/reconstruction": reconstruction} | terms

    def _reconstruction(self, output: VAEOutput | LatentVAEOutput, images: Tensor) -> Tensor:
        """Return the reconstruction loss of the images, or of the target that the model returns."""
        likelihood = self.objective.likelihood
        if isinstance(output, LatentVAEOutput):
            return error_loss(output.reconstruction - output.target, likelihood)
        return reconstruction_loss(output.logits, images, likelihood)

    def _describe_codes(self) -> Terms:
        """Return the terms of the codes of the joint batch of all processes and parts."""
        mean, log_variance = (
            join_processes(self.accelerator, torch.cat(values))
            for values in zip(*self.inferred, strict=True)
        )
        return code_terms(mean, log_variance)


def check_likelihood(model: ModelMixin, likelihood: str) -> None:
    """Raise unless a likelihood suits the reconstructions of a model.

    Raises:
        ValueError: If it is Bernoulli and the model reconstructs latents.
    """
    if isinstance(model, LatentVAE) and likelihood == "bernoulli":
        raise ValueError(
            "objective.likelihood must be gaussian or laplace for a latent VAE, whose "
            f"reconstructions are not probabilities, got {likelihood}"
        )
