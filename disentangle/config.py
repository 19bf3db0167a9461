"""Every knob of every task, typed and documented once.

The sections `model`, `discriminator` and `data` are the constructor arguments of the class that
their `name` chooses: each knob and its default stand where the class is, and nowhere else.
"""

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from disentangle.data import (
    MPI3D,
    Cars3D,
    ColorDSprites,
    DSprites,
    ImageFolder,
    NoisyDSprites,
    RenderedShapes,
    RenderedSprites,
    ScreamDSprites,
    Shapes3D,
    SmallNORB,
)
from disentangle.models import (
    EigenGAN,
    EigenGANDiscriminator,
    SimpleGAN,
    SimpleGANDiscriminator,
    SubspaceVAE,
)
from disentangle.orthogonality import WEIGHT_TECHNIQUES, Technique, WeightConstraint


def _check_positive(config: Any, *names: str) -> None:
    section = type(config).__name__.removesuffix("Config").removeprefix("GAN").removeprefix("VAE")
    for name in names:
        if getattr(config, name) <= 0:
            raise ValueError(
                f"{section.lower()}.{name} must be positive, got {getattr(config, name)}"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam.

    Attributes:
        lr: Learning rate, per step.
        betas: Decay of the running averages of the gradient and of its square.
        decay_from: Fraction of the steps after which the rate falls linearly to 0; 1 keeps it.
    """

    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    decay_from: float = 1.0

    def __post_init__(self) -> None:
        _check_positive(self, "lr")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must lie in [0, 1), got {self.betas}")
        if not 0 <= self.decay_from <= 1:
            raise ValueError(f"optimizer.decay_from must lie in [0, 1], got {self.decay_from}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 1 to `steps`.

        Examples:
            >>> schedule = OptimizerConfig(lr=1.0, decay_from=0.5)
            >>> [schedule.rate(step, 8) for step in (1, 4, 5, 8)]
            [1.0, 1.0, 1.0, 0.25]
        """
        kept = round(self.decay_from * steps)
        return self.lr if step <= kept else self.lr * (steps + 1 - step) / (steps - kept)


@dataclass(frozen=True)
class TrainingConfig:
    """Length, batches, precision and what is written when.

    Attributes:
        steps: Optimizer steps.
        batch_size: Images per step, over all processes and accumulation steps together.
        accumulation: Parts into which the batch of a process is divided to save memory.
        mixed_precision: Overrides what `accelerate launch` was told.
        channels_last: Keep images and convolutions in the memory order that they are fast in.
        compile: Compile the networks with `torch.compile`; penalties, which differentiate twice,
            run without.
        flip: Mirror each image horizontally with probability ½.
        cpu_threads: Threads of each process for arithmetic on a CPU; 0 leaves them as they are,
            which after `accelerate launch` can mean one.
        workers: Processes that decode images, for each training process; 0 decodes in it.
        ema_half_life: Images after which the weights of a step count half in their running
            average; 0 keeps none.
        log_every: Steps between two lines of `metrics.jsonl`.
        conditioning_every: Steps between two measurements of how well the Pre-SVD parameters and
            their gradients are conditioned; by default as `log_every`, 0 makes none.
        activeness_every: Steps between two measurements of how much each subspace of the latents
            changes the image, with a warning when one has stopped; by default as `sample_every`, 0
            makes none.
        sample_every: Steps between two sheets of samples.
        checkpoint_every: Steps between two checkpoints; the last step always has one.
        keep_checkpoints: How many of the newest checkpoints are kept.
    """

    steps: int = 100_000
    batch_size: int = 64
    accumulation: int = 1
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    channels_last: bool = True
    compile: bool = False
    flip: bool = False
    cpu_threads: int = 0
    workers: int = 0
    ema_half_life: int = 0
    log_every: int = 100
    conditioning_every: int | None = None
    activeness_every: int | None = None
    sample_every: int = 1000
    checkpoint_every: int = 5000
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        _check_positive(self, "steps", "batch_size", "accumulation", "log_every")
        _check_positive(self, "sample_every", "checkpoint_every", "keep_checkpoints")
        names = ("cpu_threads", "workers", "ema_half_life", "conditioning_every")
        for name in (*names, "activeness_every"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"training.{name} must not be negative, got {getattr(self, name)}")

    @property
    def conditioning_steps(self) -> int:
        """Steps between two measurements of conditioning; 0 makes none."""
        return self.log_every if self.conditioning_every is None else self.conditioning_every

    @property
    def activeness_steps(self) -> int:
        """Steps between two measurements of activeness; 0 makes none."""
        return self.sample_every if self.activeness_every is None else self.activeness_every


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
        _check_positive(self, "r1_every", "regulariser_epsilon")
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
        for name in ("gradient_penalty_weight", "r1_weight", "regulariser_weight"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"objective.{name} must not be negative, got {getattr(self, name)}"
                )
        if self.hinged_generator and self.loss != "hinge":
            raise ValueError(f"objective.hinged_generator goes with hinge, got {self.loss!r}")
        if not 0 <= self.augment_probability <= 1:
            raise ValueError(
                f"objective.augment_probability must lie in [0, 1], got {self.augment_probability}"
            )


OPTIONS_OF_KIND = {
    ("beta",): ("beta",),
    ("annealed",): ("capacity_weight", "capacity", "capacity_steps"),
    ("factor",): (
        "density_ratio_weight",
        "discriminator_dim",
        "discriminator_depth",
        "discriminator_lr",
        "discriminator_betas",
    ),
    ("beta_tc",): ("total_correlation_weight", "total_correlation_estimator"),
    ("dip_1", "dip_2"): ("off_diagonal_weight", "diagonal_factor"),
}
KINDS_OF_OPTION = {name: kinds for kinds, names in OPTIONS_OF_KIND.items() for name in names}


@dataclass(frozen=True)
class VAEObjective:
    """The evidence lower bound, changed in a way that is to disentangle the code.

    The losses of all kinds but `beta` and `factor` look at the batch as a whole, over all
    processes: they need `training.accumulation` 1. The defaults are those of disentanglement_lib.
    An option of another kind than the chosen one must be left at its default.

    Attributes:
        kind: `beta`-VAE, `annealed` VAE, FactorVAE, β-TCVAE, or DIP-VAE I or II.
        likelihood: Of a pixel given the code: Bernoulli, a Gaussian of unit variance, or a Laplace
            distribution of unit scale.
        beta: With `beta`, weight of the divergence from the prior; 1 is the plain VAE.
        capacity_weight: With `annealed`, weight `γ` of how far the divergence is from the capacity.
        capacity: With `annealed`, the capacity `C` in the end, in nats.
        capacity_steps: With `annealed`, steps in which the capacity grows from 0.
        density_ratio_weight: With `factor`, weight `γ` of the total correlation.
        discriminator_dim: With `factor`, width of the discriminator's hidden layers.
        discriminator_depth: With `factor`, how many there are.
        discriminator_lr: With `factor`, learning rate of the discriminator's Adam.
        discriminator_betas: With `factor`, decay of its running averages.
        total_correlation_weight: With `beta_tc`, weight `β` of the total correlation, which is a
            part of the divergence; 1 is the plain VAE.
        total_correlation_estimator: With `beta_tc`, from a minibatch `weighted` or `stratified`;
            the latter reads the data set once more, for its size.
        off_diagonal_weight: With `dip_1` and `dip_2`, weight `λ_od` of the covariances of codes.
        diagonal_factor: With `dip_1` and `dip_2`, how many times `λ_od` the weight `λ_d` of the
            variances is; by default 10 for I and 1 for II.
    """

    kind: Literal["beta", "annealed", "factor", "beta_tc", "dip_1", "dip_2"] = "beta"
    likelihood: Literal["bernoulli", "gaussian", "laplace"] = "bernoulli"
    beta: float = 1.0
    capacity_weight: float = 1000.0
    capacity: float = 25.0
    capacity_steps: int = 100_000
    density_ratio_weight: float = 10.0
    discriminator_dim: int = 1000
    discriminator_depth: int = 6
    discriminator_lr: float = 1e-4
    discriminator_betas: tuple[float, float] = (0.5, 0.9)
    total_correlation_weight: float = 6.0
    total_correlation_estimator: Literal["weighted", "stratified"] = "weighted"
    off_diagonal_weight: float = 10.0
    diagonal_factor: float | None = None

    def __post_init__(self) -> None:
        for option in fields(self)[2:]:
            value = getattr(self, option.name)
            kinds = KINDS_OF_OPTION[option.name]
            if self.kind not in kinds and value != option.default:
                raise ValueError(
                    f"objective.{option.name} goes with objective.kind {' or '.join(kinds)}, "
                    f"got {self.kind}"
                )
            if isinstance(value, float) and value < 0:
                raise ValueError(f"objective.{option.name} must not be negative, got {value}")
        _check_positive(self, "capacity_steps", "discriminator_dim", "discriminator_depth")
        _check_positive(self, "discriminator_lr")
        if not all(0 <= beta < 1 for beta in self.discriminator_betas):
            given = self.discriminator_betas
            raise ValueError(f"objective.discriminator_betas must lie in [0, 1), got {given}")

    @property
    def diagonal_weight(self) -> float:
        """`λ_d`, the weight of the codes' variances."""
        factor = self.diagonal_factor
        if factor is None:
            factor = 10.0 if self.kind == "dip_1" else 1.0
        return factor * self.off_diagonal_weight


@dataclass(frozen=True)
class Task:
    """What can be chosen for a task: its objective, its models and their discriminators."""

    objective: type
    models: Mapping[str, type]
    discriminators: Mapping[str, type] = field(default_factory=dict)


TASKS = {
    "gan": Task(
        GANObjective,
        {"eigengan": EigenGAN, "simple_gan": SimpleGAN},
        {"eigengan": EigenGANDiscriminator, "simple_gan": SimpleGANDiscriminator},
    ),
    "vae": Task(VAEObjective, {"subspace_vae": SubspaceVAE}),
}
DATA_SETS = {
    "sprites": RenderedSprites,
    "shapes": RenderedShapes,
    "dsprites": DSprites,
    "color_dsprites": ColorDSprites,
    "noisy_dsprites": NoisyDSprites,
    "scream_dsprites": ScreamDSprites,
    "shapes3d": Shapes3D,
    "cars3d": Cars3D,
    "smallnorb": SmallNORB,
    "mpi3d": MPI3D,
    "folder": ImageFolder,
}
FROM_MODEL = {"image_size", "image_channels"}  # the model's say; other sections must not repeat it
FROM_RUN = {"pre_svd_weight"}  # the say of `orthogonality`; the section `model` must not repeat it
CONSTRAINTS: dict[str, WeightConstraint] = {"ow": "orthogonal", "sn": "spectral"}


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        task: What is trained: `gan` or `vae`.
        output: The run folder to make.
        data: `name` of the data set and the arguments of its class.
        model: `name` of the model and the arguments of its class.
        objective: The task's own knobs.
        discriminator: `name` of the discriminator and the arguments of its class; only for GANs.
        optimizer: Adam's knobs, the same for every network of the run.
        training: Length, batches, precision and what is written when.
        seed: Of the initial weights and of every random draw.
        orthogonality: Techniques that act on the Pre-SVD parameters, in any combination.
        pre_svd_parameters: Names of these parameters, in place of those that the model names.
        orthogonal_loss_weight: Weight of the technique `ol`.
    """

    task: str
    output: Path
    data: dict[str, Any]
    model: dict[str, Any]
    objective: GANObjective | VAEObjective
    discriminator: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    orthogonality: tuple[Technique, ...] = ()
    pre_svd_parameters: tuple[str, ...] | None = None
    orthogonal_loss_weight: float = 100.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be between 0 and 2**63 - 1, got {self.seed}")
        if len(set(self.orthogonality)) < len(self.orthogonality):
            raise ValueError(f"orthogonality names a technique twice: {list(self.orthogonality)}")
        if set(WEIGHT_TECHNIQUES) <= set(self.orthogonality):
            raise ValueError(
                "orthogonality may hold one of ow and sn, which keep the same weight to different "
                f"things, got {list(self.orthogonality)}"
            )
        if repeated := FROM_RUN & self.model.keys():
            raise ValueError(
                f"model.{repeated.pop()} is no option of a run: choose it by orthogonality, which "
                "takes ow for an orthogonal and sn for a spectrally normalised weight"
            )
        constrained = not set(WEIGHT_TECHNIQUES).isdisjoint(self.orthogonality)
        if constrained and self.pre_svd_parameters is not None:
            raise ValueError(
                "pre_svd_parameters cannot be chosen with ow or sn, which the model builds into "
                f"its own Pre-SVD layers, got {list(self.pre_svd_parameters)}"
            )
        if self.orthogonal_loss_weight < 0:
            weight = self.orthogonal_loss_weight
            raise ValueError(f"orthogonal_loss_weight must not be negative, got {weight}")

    def build_model(self) -> Any:
        """The model of this run, with fresh weights, constrained as `orthogonality` says."""
        chosen = [CONSTRAINTS[name] for name in self.orthogonality if name in CONSTRAINTS]
        weight = {"pre_svd_weight": chosen[0]} if chosen else {}
        return _build(TASKS[self.task].models, self.model | weight)

    def build_discriminator(self) -> Any:
        """The discriminator of this run, for the images that the model makes."""
        shape = {key: self.model[key] for key in FROM_MODEL}
        return _build(TASKS[self.task].discriminators, self.discriminator | shape)

    def build_data(self) -> Any:
        """The data set of this run, with images of the model's size and channels.

        Raises:
            ValueError: If the data set has images of another shape.
            FileNotFoundError: If a file or folder is missing.
        """
        accepted = inspect.signature(DATA_SETS[self.data["name"]]).parameters
        shape = {key: self.model[key] for key in FROM_MODEL & accepted.keys()}
        data = _build(DATA_SETS, self.data | shape)
        for key in sorted(FROM_MODEL):
            if getattr(data, key) != self.model[key]:
                raise ValueError(
                    f"model.{key} is {self.model[key]}, but the data set {self.data['name']!r} "
                    f"has {key} {getattr(data, key)}"
                )
        return data

    def dump(self) -> str:
        """The run as YAML that `disentangle.parsing.parse_run` reads back."""
        return yaml.safe_dump(_plain(asdict(self)), sort_keys=False)


def _build(classes: Mapping[str, type], section: Mapping[str, Any]) -> Any:
    arguments = dict(section)
    return classes[arguments.pop("name")](**arguments)


def _plain(value: Any) -> Any:
    """The value with tuples as lists and paths as strings, as YAML has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
