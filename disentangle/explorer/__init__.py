"""The explorer: a page, or a small server, on which the axes of runs are moved."""

from disentangle.explorer.writing import write_explorer

__all__ = ["write_explorer"]
