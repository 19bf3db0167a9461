"""Checks of an installation on a GPU: whether it computes right, and how fast."""
