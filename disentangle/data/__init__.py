"""Data sets with ground-truth factors and folders of images."""

from disentangle.data.base import GroundTruthData, ImageData
from disentangle.data.dsprites import DSprites
from disentangle.data.folder import ImageFolder
from disentangle.data.pixels import scale_pixels
from disentangle.data.sprites import RenderedSprites

__all__ = [
    "DSprites",
    "GroundTruthData",
    "ImageData",
    "ImageFolder",
    "RenderedSprites",
    "scale_pixels",
]
