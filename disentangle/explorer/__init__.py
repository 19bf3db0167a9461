"""Explorer of the axes of runs: a page, or a small server, with a slider for each axis."""

from disentangle.explorer.writing import write_explorer

__all__ = ["write_explorer"]
