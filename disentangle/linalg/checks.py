"""What the matrix functions accept."""

import torch
from torch import Tensor


def check_matrix(name: str, matrix: Tensor) -> None:
    """Raises `ValueError` unless `matrix` is a dense `(…, m, n)` and floating point."""
    if not isinstance(matrix, Tensor) or matrix.layout != torch.strided:
        kind = matrix.layout if isinstance(matrix, Tensor) else type(matrix).__name__
        raise ValueError(f"{name} must be a dense tensor, got {kind}")
    if matrix.ndim < 2:
        shape = tuple(matrix.shape)
        raise ValueError(f"{name} must have at least 2 dimensions, (…, m, n), got shape {shape}")
    if not matrix.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {matrix.dtype}")


def check_covariance(covariance: Tensor) -> None:
    """Raises `ValueError` unless `covariance` is `(…, n, n)`, `n ≥ 1`, and floating point."""
    check_matrix("covariance", covariance)
    if covariance.shape[-1] != covariance.shape[-2] or covariance.shape[-1] == 0:
        raise ValueError(
            "covariance must be square and not empty, (…, n, n), "
            f"got shape {tuple(covariance.shape)}"
        )
