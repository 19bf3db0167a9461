"""Matrix functions: pure, batched over leading dimensions, on the device of their argument."""

from disentangle.linalg.polar import polar_factor, polar_factors
from disentangle.linalg.spectrum import condition_number, effective_rank
from disentangle.linalg.square_root import (
    SQUARE_ROOT_METHODS,
    SquareRootMethod,
    matrix_inverse_sqrt,
    matrix_sqrt,
)

__all__ = [
    "SQUARE_ROOT_METHODS",
    "SquareRootMethod",
    "condition_number",
    "effective_rank",
    "matrix_inverse_sqrt",
    "matrix_sqrt",
    "polar_factor",
    "polar_factors",
]
