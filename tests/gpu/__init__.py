"""Checks of an installation on a GPU: correctness, speed and memory."""
