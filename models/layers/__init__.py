"""Layers built on the singular value decomposition."""

from disentangle.models.layers.subspace import SubspaceLayer

__all__ = ["SubspaceLayer"]
