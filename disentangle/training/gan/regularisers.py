"""Disentanglement regularisers of a generator, by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.config import GANObjective, RunConfig
from disentangle.distributed.fsdp import gather_parameters
from disentangle.losses.directional_derivatives import rademacher_directions
from disentangle.losses.hessian_penalty import hessian_penalty
from disentangle.losses.orojar import orojar
from disentangle.losses.variation_predictability import choose_axes, move_along, variation_loss
from disentangle.models import VariationRecogniser
from disentangle.training.batches import Batch
from disentangle.training.gan.feature_hooks import record_layers
from disentangle.training.gan.parametrize_cache import hold_weights
from disentangle.training.learner import Learner, Terms
from disentangle.training.rng import Purpose

PENALTIES = {"hessian_penalty": hessian_penalty, "orojar": orojar}


class Regulariser(ABC):
    """Term of the generator's loss, and the networks trained for it."""

    @abstractmethod
    def loss(self, part: Batch, z: Tensor, images: Tensor) -> Tensor:
        """Return the term for latents `(N, D)` and their images `(N, C, H, W)`."""

    def step(self, parts: list[Batch]) -> Terms:
        """Train the additional networks, after the generator's step, and return their terms."""
        return {}

    @property
    def learners(self) -> list[Learner]:
        """Learners of the additional networks."""
        return []


class DerivativeRegulariser(Regulariser):
    """Hessian Penalty or OroJaR along the generator's axes.

    Args:
        objective: Objective with the options of the penalty.
        generator: Generator on the training device.
        decode: Function to penalise, from latents `(N, D)` to images or outputs of layers.
    """

    def __init__(
        self, objective: GANObjective, generator: ModelMixin, decode: Callable[[Tensor], Any]
    ) -> None:
        self.penalty = partial(
            PENALTIES[objective.regulariser],
            epsilon=objective.regulariser_epsilon,
            difference=objective.regulariser_difference,
            reduction=objective.regulariser_reduction,
        )
        self.count = objective.regulariser_directions
        self.generator, self.decode, self.axes = generator, decode, stack_axes(generator)

    def loss(self, part: Batch, z: Tensor, images: Tensor) -> Tensor:
        """Return the penalty of decoding around the latents."""
        numbers = part.uniform(Purpose.DIRECTION, self.count * len(self.axes))
        gather_parameters(self.generator)
        with hold_weights(self.generator):
            return self.penalty(self.decode, z, rademacher_directions(numbers, self.axes))


class VariationRegulariser(Regulariser):
    """Variation predictability: a recogniser learns to predict the axis that was moved.

    Both networks minimise one loss. They step one after the other, each with the gradient at the
    weights before either step.

    Args:
        run: The run.
        accelerator: Accelerator to prepare the recogniser with.
        generator: Generator on the training device.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator, generator: ModelMixin) -> None:
        self.generator, self.axes = generator, stack_axes(generator)
        shape = {name: run.model[name] for name in ("image_size", "image_channels")}
        recogniser = VariationRecogniser(axis_count=len(self.axes), **shape)
        self.learner = Learner(run, accelerator, recogniser.to(accelerator.device))
        self.seen: dict[range, tuple[Tensor, Tensor, Tensor]] = {}

    def loss(self, part: Batch, z: Tensor, images: Tensor) -> Tensor:
        """Return the recogniser's loss on images that are each moved along one axis."""
        chosen = choose_axes(part.uniform(Purpose.AXIS, 1).squeeze(1), len(self.axes))
        amounts = part.normal(Purpose.VARIATION, 1).squeeze(1)
        moved = self.generator(move_along(z, self.axes, chosen, amounts))
        self.seen[part.samples] = images.detach(), moved.detach(), chosen
        return variation_loss(self.learner.raw, images, moved, chosen)

    def step(self, parts: list[Batch]) -> Terms:
        """Train the recogniser on the images of the generator's loss."""
        terms = self.learner.descend(parts, self._loss)
        self.seen.clear()
        return terms

    @property
    def learners(self) -> list[Learner]:
        """Learner of the recogniser."""
        return [self.learner]

    def _loss(self, part: Batch) -> tuple[Tensor, Terms]:
        loss = variation_loss(self.learner.network, *self.seen[part.samples])
        return loss, {"loss/recogniser": loss}


def build_regulariser(
    run: RunConfig, accelerator: Accelerator, generator: ModelMixin
) -> Regulariser | None:
    """Build the regulariser that a run names; return None if it names none.

    Raises:
        ValueError: If a layer of `regulariser_layers` is unknown, even without a regulariser, or
            does not run in decoding although the regulariser needs its output.
    """
    assert isinstance(run.objective, GANObjective)
    decode = generator.decode
    if layers := run.objective.regulariser_layers:
        decode = record_layers(decode, generator, layers)
    if run.objective.regulariser == "none":
        return None
    if run.objective.regulariser in PENALTIES:
        if layers:
            with torch.no_grad():
                decode(stack_axes(generator)[:1])
        return DerivativeRegulariser(run.objective, generator, decode)
    if run.objective.regulariser == "variation_predictability":
        return VariationRegulariser(run, accelerator, generator)
    raise ValueError(f"no class is known for objective.regulariser {run.objective.regulariser}")


def stack_axes(generator: ModelMixin) -> Tensor:
    """Stack the directions of a generator's axes, `(A, D)`, on its device."""
    device = next(generator.parameters()).device
    return torch.stack([axis.direction for axis in generator.axes]).to(device)
