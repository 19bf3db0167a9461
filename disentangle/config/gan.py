"""The section `objective` of the task `gan`."""

from dataclasses import dataclass
from typing import Literal

from disentangle.config.checks import check_not_negative, check_positive


@dataclass(frozen=True)
class GANObjective:
    """Adversarial training.

    Attributes:
        loss: The pair of losses, by its usual name; `bce` is `non_saturating` with half the
            discriminator's loss.
        hinged_generator: With `hinge`, the generator's loss is `E relu(1 − D)` as in the official
            code of the paper, in place of the usual `−E D`.
        gradient_penalty_weight: Weight of `E(‖∇D‖ − 1)²` between real and made images, at every
            step; with `wasserstein` and 10, this is WGAN-GP.
        r1_weight: Weight of `E‖∇D‖²` on real images (no ½); 0 leaves it out.
        r1_every: Steps between two R1 steps, each a step of the discriminator of its own.
        r1_lazy_scaling: Multiply the weight by `r1_every`, as StyleGAN2 does.
        augment_probability: Probability of each DiffAugment transform (colour, translation,
            cutout) for an image; 0 turns them off.
        fresh_latents: Make the images of the generator's step from latents of their own, not from
            those of the discriminator's step, which need be made once only.
        regulariser: Of disentanglement, beside the generator's loss; what the orthogonality
            techniques are compared with.
        regulariser_weight: Its weight.
        regulariser_layers: Modules of the generator whose outputs `hessian_penalty` and `orojar`
            look at; by default the images.
        regulariser_directions: Random directions of these two, for each image and step.
        regulariser_epsilon: Step of their finite differences.
        regulariser_difference: Their derivatives by finite differences, as published, or exact.
        regulariser_reduction: The largest over the images, as published, which is that of each
            process's part of a batch; the mean is the same however a batch is divided.
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
                "objective.regulariser_directions must be at least 2, whose variance is taken, "
                f"got {self.regulariser_directions}"
            )
        if self.loss == "wasserstein" and not (self.gradient_penalty_weight or self.r1_weight):
            raise ValueError(
                "the loss wasserstein has no minimum without a bound on the discriminator's slope: "
                "objective.gradient_penalty_weight or objective.r1_weight must be positive"
            )
        check_not_negative(self, "gradient_penalty_weight", "r1_weight", "regulariser_weight")
        if self.hinged_generator and self.loss != "hinge":
            raise ValueError(f"objective.hinged_generator goes with hinge, got {self.loss!r}")
        if not 0 <= self.augment_probability <= 1:
            raise ValueError(
                f"objective.augment_probability must lie in [0, 1], got {self.augment_probability}"
            )
