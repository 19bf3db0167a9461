"""The section `objective` of the task `gan`."""

from dataclasses import dataclass
from typing import Literal

from disentangle.config.checks import check_not_negative, check_positive


@dataclass(frozen=True)
class GANObjective:
    """Adversarial training.

    Attributes:
        loss: Losses of the discriminator and the generator; `bce` is `non_saturating` with half
            the discriminator's loss.
        hinged_generator: With `hinge`, use the generator's loss `E relu(1 − D)`, as in the official
            code of the paper, instead of the usual `−E D`.
        gradient_penalty_weight: Weight of `E(‖∇D‖ − 1)²` between real and generated images, at
            every step; with `wasserstein` and 10, this is WGAN-GP.
        r1_weight: Weight of `E‖∇D‖²` on real images (no ½); 0 turns it off.
        r1_every: Steps between two R1 penalties, each a separate step of the discriminator.
        r1_lazy_scaling: Multiply the weight by `r1_every`, as StyleGAN2 does.
        augment_probability: Probability of each DiffAugment transform (colour, translation,
            cutout) for an image; 0 turns them off.
        fresh_latents: Draw new latents for the generator's step, as the official code does;
            otherwise it reuses those of the discriminator's step, whose images are then generated
            only once.
        regulariser: Disentanglement regulariser, added to the generator's loss: a baseline for
            the orthogonality techniques.
        regulariser_weight: Weight of the regulariser.
        regulariser_layers: Modules of the generator to whose outputs `hessian_penalty` and
            `orojar` apply; by default they apply to the images.
        regulariser_directions: Number of random directions of these two, for each image and step.
        regulariser_epsilon: Step of their finite differences.
        regulariser_difference: Derivatives by finite differences, as published, or exact.
        regulariser_reduction: Reduction over the images: `max`, as published, is taken over each
            process's part of a batch; `mean` does not depend on how a batch is divided.
    """

    loss: Literal["hinge", "non_saturating", "bce", "lsgan", "wasserstein"] = "hinge"
    hinged_generator: bool = False
    gradient_penalty_weight: float = 0.0
    r1_weight: float = 10.0
    r1_every: int = 16
    r1_lazy_scaling: bool = False
    augment_probability: float = 0.6
    fresh_latents: bool = False
    regulariser: Literal["none", "hessian_penalty", "orojar", "variation_predictability"] = "none"
    regulariser_weight: float = 1e-5
    regulariser_layers: tuple[str, ...] = ()
    regulariser_directions: int = 2
    regulariser_epsilon: float = 0.1
    regulariser_difference: Literal["finite", "exact"] = "finite"
    regulariser_reduction: Literal["max", "mean"] = "max"

    def __post_init__(self) -> None:
        check_positive(self, "r1_every", "regulariser_epsilon")
        if self.regulariser_directions < 2:
            raise ValueError(
                "objective.regulariser_directions must be at least 2, to take a variance, "
                f"got {self.regulariser_directions}"
            )
        if self.loss == "wasserstein" and not (self.gradient_penalty_weight or self.r1_weight):
            raise ValueError(
                "the loss wasserstein has no minimum without a bound on the discriminator's slope: "
                "objective.gradient_penalty_weight or objective.r1_weight must be positive"
            )
        check_not_negative(self, "gradient_penalty_weight", "r1_weight", "regulariser_weight")
        if self.hinged_generator and self.loss != "hinge":
            raise ValueError(
                f"objective.hinged_generator requires objective.loss hinge, got {self.loss!r}"
            )
        if not 0 <= self.augment_probability <= 1:
            raise ValueError(
                f"objective.augment_probability must lie in [0, 1], got {self.augment_probability}"
            )
