"""Choices by name: tasks with their models, and data sets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from disentangle.config.classification import ClassificationObjective
from disentangle.config.gan import GANObjective
from disentangle.config.vae import VAEObjective
from disentangle.data import (
    CIFAR10,
    CIFAR100,
    CUB200,
    LSUN,
    MPI3D,
    Cars3D,
    CelebA,
    ClassFolder,
    ColorDSprites,
    Digits,
    DSprites,
    FGVCAircraft,
    ImageFolder,
    NoisyDSprites,
    RenderedScene,
    RenderedShapes,
    RenderedSprites,
    ScreamDSprites,
    Shapes3D,
    SmallNORB,
    StanfordCars,
)
from disentangle.models.loading import CLASSIFIERS, DISCRIMINATORS, GENERATORS, VAES

FORMER_NAMES = {"recognition": "classification"}  # of tasks and of groups of metrics


@dataclass(frozen=True)
class Task:
    """Choices for a task: its objective, its models and their discriminators."""

    objective: type
    models: Mapping[str, type]
    discriminators: Mapping[str, type] = field(default_factory=dict)


TASKS = {
    "gan": Task(GANObjective, GENERATORS, DISCRIMINATORS),
    "vae": Task(VAEObjective, VAES),
    "classification": Task(ClassificationObjective, CLASSIFIERS),
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
    "celeba": CelebA,
    "lsun": LSUN,
    "digits": Digits,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "class_folder": ClassFolder,
    "cub200": CUB200,
    "stanford_cars": StanfordCars,
    "fgvc_aircraft": FGVCAircraft,
    "scene": RenderedScene,
}


def current_name(name: Any) -> Any:
    """Return the name that a task or a group of metrics has now; anything else as it is.

    Examples:
        >>> current_name("recognition"), current_name("vae")
        ('classification', 'vae')
    """
    return FORMER_NAMES.get(name, name) if isinstance(name, str) else name
