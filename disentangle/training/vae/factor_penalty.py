"""Penalty of FactorVAE, with its discriminator."""

from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor

from disentangle.config import RunConfig, VAEObjective
from disentangle.distributed.all_gather import join_processes
from disentangle.losses.factor_vae import density_ratio, permute_codes, tell_apart_loss
from disentangle.models.code_discriminator import CodeDiscriminator
from disentangle.training.batches import Batch
from disentangle.training.learner import Learner, Terms
from disentangle.training.rng import Purpose
from disentangle.training.vae.penalty import Penalty, Posterior


class FactorPenalty(Penalty):
    """FactorVAE: `KL + γ TC`, with the density ratio of a discriminator trained in alternation.

    The discriminator is trained on the codes of the VAE's step, and on the same codes permuted over
    the joint batch of all processes and parts, as in disentanglement_lib; the paper permutes those
    of a second batch.

    Args:
        run: The run.
        accelerator: Accelerator to prepare the discriminator with.
        code_dim: Dimension `K` of the codes.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator, code_dim: int) -> None:
        assert isinstance(run.objective, VAEObjective)
        self.objective, self.accelerator, self.code_dim = run.objective, accelerator, code_dim
        discriminator = CodeDiscriminator(
            code_dim=code_dim,
            hidden_dim=self.objective.discriminator_dim,
            depth=self.objective.discriminator_depth,
        )
        optimizer = replace(
            run.optimizer,
            lr=self.objective.discriminator_lr,
            betas=self.objective.discriminator_betas,
        )
        own = replace(run, optimizer=optimizer)
        self.discriminator = Learner(own, accelerator, discriminator.to(accelerator.device))
        self.seen: dict[range, Tensor] = {}
        self.permuted: dict[range, Tensor] = {}

    def loss(self, part: Batch, posterior: Posterior) -> tuple[Tensor, Terms]:
        """Return the KL divergence plus the weighted total correlation by the discriminator."""
        self.seen[part.samples] = posterior.z.detach()
        correlation = density_ratio(self.discriminator.raw(posterior.z))
        divergence = posterior.divergence()
        terms = {"loss/divergence": divergence, "loss/total_correlation": correlation}
        return divergence + self.objective.density_ratio_weight * correlation, terms

    def step(self, parts: list[Batch]) -> Terms:
        """Train the discriminator on the codes of the VAE's step."""
        codes = [self.seen[part.samples] for part in parts]
        numbers = [part.uniform(Purpose.PERMUTATION, self.code_dim) for part in parts]
        joint, order = (
            join_processes(self.accelerator, torch.cat(each)) for each in (codes, numbers)
        )
        rows = sum(map(len, codes))
        own = permute_codes(joint, order)[self.accelerator.process_index * rows :][:rows]
        samples = [part.samples for part in parts]
        self.permuted = dict(zip(samples, own.split(len(codes[0])), strict=True))
        return self.discriminator.descend(parts, self._discriminator_loss)

    @property
    def learners(self) -> list[Learner]:
        """Learner of the discriminator."""
        return [self.discriminator]

    def _discriminator_loss(self, part: Batch) -> tuple[Tensor, Terms]:
        codes = torch.cat([self.seen.pop(part.samples), self.permuted.pop(part.samples)])
        # One call, not two: a distributed wrapper allows one forward per backward.
        real, permuted = self.discriminator.network(codes).chunk(2)
        loss = tell_apart_loss(real, permuted)
        return loss, {"loss/discriminator": loss}
