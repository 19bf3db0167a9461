"""Latent traversals: the images along every axis, as labelled grids and animations."""

from disentangle.traversal.animation import check_animation, save_animation
from disentangle.traversal.changes import measure_changes
from disentangle.traversal.choice import pick_axes, rank_axes
from disentangle.traversal.drawing import draw_traversals
from disentangle.traversal.frames import DEFAULT_VALUES, TraversalAxis, traverse, value_labels
from disentangle.traversal.grid import traversal_grid
from disentangle.traversal.inversion import Inversion, invert
from disentangle.traversal.sheet import image_grid

__all__ = [
    "DEFAULT_VALUES",
    "Inversion",
    "TraversalAxis",
    "check_animation",
    "draw_traversals",
    "image_grid",
    "invert",
    "measure_changes",
    "pick_axes",
    "rank_axes",
    "save_animation",
    "traversal_grid",
    "traverse",
    "value_labels",
]
