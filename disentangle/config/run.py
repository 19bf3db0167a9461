"""A whole run."""

import inspect
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from disentangle.config.arguments import SECTIONS
from disentangle.config.choices import DATA_SETS, TASKS
from disentangle.config.classification import ClassificationObjective
from disentangle.config.gan import GANObjective
from disentangle.config.optimizer import OptimizerConfig
from disentangle.config.training import TrainingConfig
from disentangle.config.vae import VAEObjective
from disentangle.config.yaml_files import dump_yaml
from disentangle.orthogonality import (
    DIRECTION_TECHNIQUES,
    WEIGHT_TECHNIQUES,
    NogScale,
    Technique,
    WeightConstraint,
)

FROM_MODEL = {"image_size", "image_channels"}  # the model's say; other sections must not repeat it
FROM_RUN = {"pre_svd_weight"}  # the say of `orthogonality`; the section `model` must not repeat it
CONSTRAINTS: dict[str, WeightConstraint] = {
    "ow": "orthogonal",
    "ow_kernel": "orthonormal_kernel",
    "sn": "spectral",
}


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        task: Training task: `gan`, `vae` or `classification`.
        output: The run folder to make.
        data: `name` of the data set and the arguments of its class.
        model: `name` of the model and the arguments of its class.
        objective: The task's own knobs.
        discriminator: `name` of the discriminator and the arguments of its class; only for GANs.
        optimizer: Optimizer of every network of the run, with its schedule.
        training: Length, batches, precision and what is written when.
        seed: Seed for the initial weights and every random draw.
        orthogonality: Techniques that act on the Pre-SVD parameters. At most one of `nog` (nearest
            orthogonal gradient) and `nou` (nearest orthogonal update, of any optimizer), and at
            most one of `ow` (orthogonal weight; of a convolution between images an orthogonal map),
            `ow_kernel` (orthonormal kernel of such a convolution; the same as `ow` in models
            without one) and `sn` (spectral norm); with either, `olr` (optimal learning rate) and
            `ol` (orthogonal loss).
        nog_scale: With `nog`, Frobenius norm of the gradient that it gives: `unit` for singular
            values of 1, as published; `gradient` for that of the gradient of the loss.
        pre_svd_parameters: Names of these parameters, in place of those that the model names.
        orthogonal_loss_weight: Weight of the technique `ol`.
    """

    task: str
    output: Path
    data: dict[str, Any]
    model: dict[str, Any]
    objective: GANObjective | VAEObjective | ClassificationObjective
    discriminator: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    seed: int = 0
    orthogonality: tuple[Technique, ...] = ()
    nog_scale: NogScale = "unit"
    pre_svd_parameters: tuple[str, ...] | None = None
    orthogonal_loss_weight: float = 100.0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be between 0 and 2**63 - 1, got {self.seed}")
        if "\0" in str(self.output):
            raise ValueError(f"output must be the path of a folder, got {str(self.output)!r}")
        if self.training.starts > 1 and self.task != "vae":
            raise ValueError(
                "training.starts above 1 requires the task vae, got "
                f"{self.training.starts} with the task {self.task}: the losses of GANs cannot be "
                "compared, and validation chooses the model of a classifier"
            )
        most = self.model.get("image_size", inf)
        if self.training.crop_padding > most:
            raise ValueError(
                f"training.crop_padding must be at most model.image_size, {most}, "
                f"got {self.training.crop_padding}"
            )
        if len(set(self.orthogonality)) < len(self.orthogonality):
            raise ValueError(f"orthogonality names a technique twice: {list(self.orthogonality)}")
        for exclusive, reason in (
            (DIRECTION_TECHNIQUES, "each of which decides the direction of a step"),
            (WEIGHT_TECHNIQUES, "which keep the same weight to different things"),
        ):
            if len(set(exclusive) & set(self.orthogonality)) > 1:
                *others, last = exclusive
                raise ValueError(
                    f"orthogonality may hold one of {', '.join(others)} and {last}, {reason}, got "
                    f"{list(self.orthogonality)}"
                )
        if self.nog_scale != "unit" and "nog" not in self.orthogonality:
            raise ValueError(
                f"nog_scale {self.nog_scale} requires nog in orthogonality, got "
                f"{list(self.orthogonality)}"
            )
        if repeated := FROM_RUN & self.model.keys():
            raise ValueError(
                f"model.{repeated.pop()} is no option of a run: choose it by orthogonality, which "
                "takes ow for an orthogonal weight, ow_kernel for an orthonormal kernel and sn for "
                "a spectrally normalised weight"
            )
        constrained = not set(WEIGHT_TECHNIQUES).isdisjoint(self.orthogonality)
        if constrained and self.pre_svd_parameters is not None:
            raise ValueError(
                "pre_svd_parameters cannot be chosen with ow, ow_kernel or sn, which the model "
                f"builds into its own Pre-SVD layers, got {list(self.pre_svd_parameters)}"
            )
        if not 0 <= self.orthogonal_loss_weight < inf:
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

    def build_data(self, **changes: Any) -> Any:
        """The data set of this run, with images of the model's size and channels.

        Args:
            **changes: Of the arguments, such as `split="test"`.

        Raises:
            ValueError: If the data set has images of another shape, or no such argument.
            FileNotFoundError: If a file or folder is missing.
        """
        accepted = inspect.signature(DATA_SETS[self.data["name"]]).parameters
        if unknown := changes.keys() - accepted.keys():
            raise ValueError(f"the data set {self.data['name']!r} has no {unknown.pop()} to choose")
        shape = {key: self.model[key] for key in FROM_MODEL & accepted.keys()}
        data = _build(DATA_SETS, self.data | shape | changes)
        for key in sorted(FROM_MODEL):
            if getattr(data, key) != self.model[key]:
                raise ValueError(
                    f"model.{key} is {self.model[key]}, but the data set {self.data['name']!r} "
                    f"has {key} {getattr(data, key)}"
                )
        return data

    def dump(self) -> str:
        """The run as YAML that `disentangle.config.parse.parse_run` reads back."""
        return dump_yaml(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The run as plain values, as they stand in its file."""
        return _plain(asdict(self))


def fill_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add the options of a run, its training, networks and data that earlier versions did not save.

    Args:
        config: Configuration of a run; sections that it lacks, and those of unknown classes, are
            left as they are.

    Examples:
        >>> config = {"task": "classification", "model": {"name": "resnet", "depth": 10}}
        >>> fill_defaults(config)["model"]["meta_scale"]
        'ones'
    """
    task = TASKS.get(config["task"])
    if task is None:
        return dict(config)
    filled = dict(config)
    for name, value in _defaults(RunConfig, SECTIONS).items():
        filled.setdefault(name, value)
    for section, classes, left_out in (
        ("model", task.models, FROM_RUN),
        ("discriminator", task.discriminators, FROM_MODEL),
        ("data", DATA_SETS, FROM_MODEL),
    ):
        name = config.get(section, {}).get("name")
        if isinstance(name, str) and name in classes:
            filled[section] = _defaults(classes[name], left_out) | config[section]
    if isinstance(config.get("training"), Mapping):
        filled["training"] = _defaults(TrainingConfig) | config["training"]
    return filled


def _defaults(cls: type, left_out: Set[str] = frozenset()) -> dict[str, Any]:
    """Return the arguments of a class that have a default."""
    return {
        name: _plain(parameter.default)
        for name, parameter in inspect.signature(cls).parameters.items()
        if name not in left_out and parameter.default is not parameter.empty
    }


def _build(classes: Mapping[str, type], section: Mapping[str, Any]) -> Any:
    arguments = dict(section)
    name = arguments.pop("name")
    for option, value in arguments.items():
        if isinstance(value, int) and not -(2**63) < value < 2**63:
            raise ValueError(f"{option} of {name} must have 64 bits, got a larger number")
    try:
        return classes[name](**arguments)
    except (RuntimeError, OverflowError, MemoryError) as error:  # of sizes beyond all bounds
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} cannot be made: {reason}") from error


def _plain(value: Any) -> Any:
    """The value with tuples as lists and paths as strings, as YAML has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
