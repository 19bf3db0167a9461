"""Data sets with ground-truth factors, with classes, and folders of images."""

from disentangle.data.base import GroundTruthData, ImageData
from disentangle.data.ground_truth.cars3d import Cars3D
from disentangle.data.ground_truth.dsprites import DSprites
from disentangle.data.ground_truth.dsprites_variants import (
    ColorDSprites,
    NoisyDSprites,
    ScreamDSprites,
)
from disentangle.data.ground_truth.mpi3d import MPI3D
from disentangle.data.ground_truth.pairs import FactorPairs, sample_pairs
from disentangle.data.ground_truth.rendered_scene import RenderedScene
from disentangle.data.ground_truth.rendered_shapes import RenderedShapes
from disentangle.data.ground_truth.shapes3d import Shapes3D
from disentangle.data.ground_truth.smallnorb import SmallNORB
from disentangle.data.ground_truth.sprites import RenderedSprites
from disentangle.data.images.celeba import CelebA
from disentangle.data.images.folder import ImageFolder
from disentangle.data.images.left_out import describe_left_out
from disentangle.data.images.lsun import LSUN
from disentangle.data.labelled.base import LabelledImages
from disentangle.data.labelled.cifar import CIFAR10, CIFAR100
from disentangle.data.labelled.class_folder import ClassFolder
from disentangle.data.labelled.cub200 import CUB200
from disentangle.data.labelled.digits import Digits
from disentangle.data.labelled.fgvc_aircraft import FGVCAircraft
from disentangle.data.labelled.stanford_cars import StanfordCars
from disentangle.data.labelled.subset import LabelledSubset, hold_out
from disentangle.data.pixels import scale_pixels

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "CUB200",
    "LSUN",
    "MPI3D",
    "Cars3D",
    "CelebA",
    "ClassFolder",
    "ColorDSprites",
    "DSprites",
    "Digits",
    "FGVCAircraft",
    "FactorPairs",
    "GroundTruthData",
    "ImageData",
    "ImageFolder",
    "LabelledImages",
    "LabelledSubset",
    "NoisyDSprites",
    "RenderedScene",
    "RenderedShapes",
    "RenderedSprites",
    "ScreamDSprites",
    "Shapes3D",
    "SmallNORB",
    "StanfordCars",
    "describe_left_out",
    "hold_out",
    "sample_pairs",
    "scale_pixels",
]
