"""Techniques that make a Pre-SVD layer orthogonal: in its gradient, its update or its weight.

The mathematics are pure functions of tensors. Thin shells put them to work: `attach` those which
act on the optimizer, just before or after each of its steps; `constrain_weight` those which act on
the weight, a parametrization; `SkewOrthogonalConv2d` stands in for a convolution.
"""

from disentangle.orthogonality.attach import Attachment, attach
from disentangle.orthogonality.constrain_weight import (
    WEIGHT_CONSTRAINTS,
    WeightConstraint,
    constrain_weight,
)
from disentangle.orthogonality.nog import NogScale, nearest_orthogonal_gradient
from disentangle.orthogonality.nou import nearest_orthogonal_update
from disentangle.orthogonality.olr import optimal_learning_rate
from disentangle.orthogonality.orthogonal_loss import orthogonal_loss
from disentangle.orthogonality.orthogonal_weight import Orthonormal
from disentangle.orthogonality.parameters import as_matrix, resolve_parameters
from disentangle.orthogonality.skew_orthogonal_convolution import SkewOrthogonalConv2d
from disentangle.orthogonality.spectral_norm import SpectralNorm
from disentangle.orthogonality.techniques import (
    DIRECTION_TECHNIQUES,
    LOSS_TECHNIQUES,
    OPTIMIZER_TECHNIQUES,
    WEIGHT_TECHNIQUES,
    Technique,
)

__all__ = [
    "DIRECTION_TECHNIQUES",
    "LOSS_TECHNIQUES",
    "OPTIMIZER_TECHNIQUES",
    "WEIGHT_CONSTRAINTS",
    "WEIGHT_TECHNIQUES",
    "Attachment",
    "NogScale",
    "Orthonormal",
    "SkewOrthogonalConv2d",
    "SpectralNorm",
    "Technique",
    "WeightConstraint",
    "as_matrix",
    "attach",
    "constrain_weight",
    "nearest_orthogonal_gradient",
    "nearest_orthogonal_update",
    "optimal_learning_rate",
    "orthogonal_loss",
    "resolve_parameters",
]
