"""What can be chosen by name: tasks with their models, and data sets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from disentangle.config.gan import GANObjective
from disentangle.config.recognition import RecognitionObjective
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
    RenderedShapes,
    RenderedSprites,
    ScreamDSprites,
    Shapes3D,
    SmallNORB,
    StanfordCars,
)
from disentangle.models import (
    EigenGAN,
    EigenGANDiscriminator,
    LatentVAE,
    ResNet,
    SimpleGAN,
    SimpleGANDiscriminator,
    SubspaceVAE,
)


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
    "vae": Task(VAEObjective, {"subspace_vae": SubspaceVAE, "latent_vae": LatentVAE}),
    "recognition": Task(RecognitionObjective, {"resnet": ResNet}),
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
}
