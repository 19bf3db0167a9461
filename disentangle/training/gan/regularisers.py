"""The regularisers of disentanglement that a generator can be trained with, by name."""

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
    """A term of the generator's loss, and what is trained beside it."""

    @abstractmethod
    def loss(self, part: Batch, z: Tensor, images: Tensor) -> Tensor:
        """The term for latents `(N, D)` and the images `(N, C, H, W)` made of them."""

    def step(self, parts: list[Batch]) -> Terms:
        """Trains what there is beside the generator, once its step is made."""
        return {}

    @property
    def learners(self) -> list[Learner]:
        """Of what is trained beside the generator."""
        return []


class DerivativeRegulariser(Regulariser):
    """The Hessian Penalty or OroJaR, along the generator's axes.

    Args:
        objective: Names the penalty and the derivative.
        generator: On the training device.
        decode: Gives what the penalty is of, from latents `(N, D)`: images, or outputs of layers.
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
        """The penalty of decoding around the latents."""
        numbers = part.uniform(Purpose.DIRECTION, self.count * len(self.axes))
        gather_parameters(self.generator)
        with hold_weights(self.generator):
            return self.penalty(self.decode, z, rademacher_directions(numbers, self.axes))


class VariationRegulariser(Regulariser):
    """Variation predictability: a recogniser that is trained to tell the axis that moved.

    Both networks minimise one loss. They step one after the other, each with the gradient at the
    weights before the step of either.

    Args:
        run: Of the generator.
        accelerator: What the recogniser is prepared with.
        generator: On the training device.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator, generator: ModelMixin) -> None:
        self.generator, self.axes = generator, stack_axes(generator)
        shape = {name: run.model[name] for name in ("image_size", "image_channels")}
        recogniser = VariationRecogniser(axis_count=len(self.axes), **shape)
        self.learner = Learner(run, accelerator, recogniser.to(accelerator.device))
        self.seen: dict[range, tuple[Tensor, Tensor, Tensor]] = {}

    def loss(self, part: Batch, z: Tensor, images: Tensor) -> Tensor:
        """The recogniser's loss on images moved along one axis each."""
        chosen = choose_axes(part.uniform(Purpose.AXIS, 1).squeeze(1), len(self.axes))
        amounts = part.normal(Purpose.VARIATION, 1).squeeze(1)
        moved = self.generator(move_along(z, self.axes, chosen, amounts))
        self.seen[part.samples] = images.detach(), moved.detach(), chosen
        return variation_loss(self.learner.raw, images, moved, chosen)

    def step(self, parts: list[Batch]) -> Terms:
        """A step of the recogniser on the images that the generator's loss has seen."""
        terms = self.learner.descend(parts, self._loss)
        self.seen.clear()
        return terms

    @property
    def learners(self) -> list[Learner]:
        """Of the recogniser."""
        return [self.learner]

    def _loss(self, part: Batch) -> tuple[Tensor, Terms]:
        loss = variation_loss(self.learner.network, *self.seen[part.samples])
        return loss, {"loss/recogniser": loss}


def build_regulariser(
    run: RunConfig, accelerator: Accelerator, generator: ModelMixin
) -> Regulariser | None:
    """The regulariser that a run names; `None` if it names none.

    Raises:
        ValueError: If a layer is not found, whatever the regulariser, or one that the regulariser
            looks at does not run when images are made.
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
    return VariationRegulariser(run, accelerator, generator)


def stack_axes(generator: ModelMixin) -> Tensor:
    """The directions of a generator's axes, `(A, D)`, on its device."""
    device = next(generator.parameters()).device
    return torch.stack([axis.direction for axis in generator.axes]).to(device)
