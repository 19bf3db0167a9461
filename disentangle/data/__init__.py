"""Data sets with ground-truth factors and folders of images."""

from disentangle.data.base import GroundTruthData, ImageData
from disentangle.data.cars3d import Cars3D
from disentangle.data.dsprites import DSprites
from disentangle.data.dsprites_variants import ColorDSprites, NoisyDSprites, ScreamDSprites
from disentangle.data.folder import ImageFolder
from disentangle.data.mpi3d import MPI3D
from disentangle.data.pixels import scale_pixels
from disentangle.data.rendered_shapes import RenderedShapes
from disentangle.data.shapes3d import Shapes3D
from disentangle.data.smallnorb import SmallNORB
from disentangle.data.sprites import RenderedSprites

__all__ = [
    "MPI3D",
    "Cars3D",
    "ColorDSprites",
    "DSprites",
    "GroundTruthData",
    "ImageData",
    "ImageFolder",
    "NoisyDSprites",
    "RenderedShapes",
    "RenderedSprites",
    "ScreamDSprites",
    "Shapes3D",
    "SmallNORB",
    "scale_pixels",
]
