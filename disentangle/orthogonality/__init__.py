"""Techniques that make a Pre-SVD layer orthogonal: in its gradient, its step size or its weight.

The mathematics are pure functions of tensors; `attach` is the thin shell that runs those which act
on the optimizer, just before each of its steps.
"""

from disentangle.orthogonality.attachment import Attachment, attach
from disentangle.orthogonality.parameters import as_matrix, resolve_parameters
from disentangle.orthogonality.techniques import (
    LOSS_TECHNIQUES,
    OPTIMIZER_TECHNIQUES,
    Technique,
    nearest_orthogonal_gradient,
    optimal_learning_rate,
    orthogonal_loss,
)

__all__ = [
    "LOSS_TECHNIQUES",
    "OPTIMIZER_TECHNIQUES",
    "Attachment",
    "Technique",
    "as_matrix",
    "attach",
    "nearest_orthogonal_gradient",
    "optimal_learning_rate",
    "orthogonal_loss",
    "resolve_parameters",
]
