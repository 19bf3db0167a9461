"""Layers built on the singular value decomposition."""
