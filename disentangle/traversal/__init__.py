"""Latent traversals along every axis, as labelled grids and animations."""

from disentangle.traversal.animation import check_animation, save_animation
from disentangle.traversal.axes import pick_axes, rank_axes, rank_live_axes
from disentangle.traversal.difference_maps import measure_changes
from disentangle.traversal.draw import draw_traversals
from disentangle.traversal.image_grid import image_grid
from disentangle.traversal.inversion import Inversion, invert
from disentangle.traversal.labelled_grid import traversal_grid
from disentangle.traversal.traverse import DEFAULT_VALUES, TraversalAxis, traverse, value_labels

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
    "rank_live_axes",
    "save_animation",
    "traversal_grid",
    "traverse",
    "value_labels",
]
