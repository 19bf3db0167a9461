"""Layers built on the singular value decomposition."""

from disentangle.models.layers.subspace import SubspaceLayer
from disentangle.models.layers.whitening import Whitening

__all__ = ["SubspaceLayer", "Whitening"]
