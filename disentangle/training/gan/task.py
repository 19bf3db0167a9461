"""The task `gan`: a generator against a discriminator."""

from functools import partial

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.config import GANObjective, RunConfig
from disentangle.data import ImageData
from disentangle.distributed.fsdp import keep_gathered
from disentangle.losses.adversarial import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    mix_images,
    r1_penalty,
)
from disentangle.training.batches import Batch
from disentangle.training.gan.diff_augment import DRAWS, diff_augment
from disentangle.training.gan.regularisers import build_regulariser
from disentangle.training.learner import Learner, Terms, frozen
from disentangle.training.rng import Purpose
from disentangle.training.task import Task

# A compiled graph cannot be differentiated twice.
EAGER = partial(torch.compiler.set_stance, "force_eager")


class GANTask(Task):
    """Task that alternates steps of the discriminator, of R1 when it is due, and the generator.

    Attributes:
        learner: Learner of the generator.
        discriminator: Learner of the discriminator.
        regulariser: Disentanglement regulariser, or None if the run names none.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator, data: ImageData) -> None:
        assert isinstance(run.objective, GANObjective)
        self.objective, self.data = run.objective, data
        self.parts = run.training.accumulation
        generator = run.build_model().to(accelerator.device)
        self.learner = Learner(run, accelerator, generator, treated=True)
        discriminator = run.build_discriminator().to(accelerator.device)
        self.discriminator = Learner(run, accelerator, discriminator)
        self.regulariser = build_regulariser(run, accelerator, generator)

    @property
    def learners(self) -> list[Learner]:
        """Learners of the generator, the discriminator and the networks of the regulariser."""
        more = [] if self.regulariser is None else self.regulariser.learners
        return [self.learner, self.discriminator, *more]

    @property
    def exports(self) -> dict[str, ModelMixin]:
        """The generator and the discriminator."""
        return {"model": self.learner.raw, "discriminator": self.discriminator.raw}

    def step(self, batch: Batch) -> Terms:
        """Train both networks on a batch, and return the terms of their losses."""
        parts = batch.split(self.parts)
        made = self._make_once(parts)
        terms = self.discriminator.descend(parts, partial(self._discriminator_loss, made))
        if self.objective.r1_weight and batch.step % self.objective.r1_every == 0:
            terms |= self.discriminator.descend(parts, self._r1_loss)
        with frozen(self.learners[1:]):
            terms |= self.learner.descend(parts, partial(self._generator_loss, made))
        if self.regulariser is not None:
            terms |= self.regulariser.step(parts)
        return terms

    def draw_samples(self, model: ModelMixin, latents: Tensor) -> Tensor:
        """Return the images `(N, C, H, W)` of the latents."""
        return model.decode(latents)

    def _make_once(self, parts: list[Batch]) -> Tensor | None:
        """Generate images for both steps, with their graph; None if each step generates its own.

        With gradient accumulation, each step does: keeping the graphs of all parts would take the
        memory that accumulation saves.
        """
        if self.objective.fresh_latents or len(parts) > 1:
            return None
        return self.learner.network(self._latents(parts[0], Purpose.LATENT))

    def _latents(self, part: Batch, purpose: Purpose) -> Tensor:
        """Return the latents for a purpose; the same for all unless `fresh_latents` is set."""
        purpose = purpose if self.objective.fresh_latents else Purpose.LATENT
        return part.normal(purpose, self.learner.raw.latent_dim)

    def _discriminator_loss(self, made: Tensor | None, part: Batch) -> tuple[Tensor, Terms]:
        if made is None:
            with torch.no_grad():
                made = self.learner.raw(self._latents(part, Purpose.LATENT))
        fake = self._augment(made.detach(), part, Purpose.AUGMENT_FAKE)
        real = self._augment(part.images, part, Purpose.AUGMENT_REAL)
        # One call, not two: a distributed wrapper allows one forward per backward.
        real_logits, fake_logits = self.discriminator.network(torch.cat([real, fake])).chunk(2)
        loss = discriminator_loss(real_logits, fake_logits, self.objective.loss)
        terms = {"loss/discriminator": loss, "logits/real": real_logits.mean()}
        terms["logits/fake"] = fake_logits.mean()
        if self.objective.gradient_penalty_weight:
            terms["gradient_penalty"] = self._gradient_penalty(real, fake, part)
            loss = loss + self.objective.gradient_penalty_weight * terms["gradient_penalty"]
        return loss, terms

    def _gradient_penalty(self, real: Tensor, fake: Tensor, part: Batch) -> Tensor:
        images = mix_images(real, fake, part.uniform(Purpose.MIXING, 1).squeeze(1))
        with EAGER(), keep_gathered(self.discriminator.raw):
            return gradient_penalty(self.discriminator.raw(images), images)

    def _r1_loss(self, part: Batch) -> tuple[Tensor, Terms]:
        images = part.images.detach().requires_grad_()
        augmented = self._augment(images, part, Purpose.AUGMENT_REAL)
        with EAGER(), keep_gathered(self.discriminator.raw):
            logits = self.discriminator.network(augmented)
            penalty = r1_penalty(logits, images)
        scale = self.objective.r1_every if self.objective.r1_lazy_scaling else 1
        # The penalty does not depend on the biases; a distributed wrapper waits for all gradients.
        loss = self.objective.r1_weight * scale * penalty + 0 * logits.sum()
        return loss, {"r1": penalty}

    def _generator_loss(self, made: Tensor | None, part: Batch) -> tuple[Tensor, Terms]:
        if made is None:
            made = self.learner.network(self._latents(part, Purpose.GENERATOR_LATENT))
        fake = self._augment(made, part, Purpose.GENERATOR_AUGMENT)
        loss = generator_loss(
            self.discriminator.raw(fake),
            self.objective.loss,
            hinged=self.objective.hinged_generator,
        )
        terms = {"loss/generator": loss}
        if self.regulariser is not None:
            z = self._latents(part, Purpose.GENERATOR_LATENT)
            terms["regulariser"] = self.regulariser.loss(part, z, made)
            loss = loss + self.objective.regulariser_weight * terms["regulariser"]
        return loss, terms

    def _augment(self, images: Tensor, part: Batch, purpose: Purpose) -> Tensor:
        probability = self.objective.augment_probability
        if not probability:
            return images
        return diff_augment(images, part.uniform(purpose, DRAWS), probability)
