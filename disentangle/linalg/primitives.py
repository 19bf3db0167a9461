"""Small pieces that the matrix functions share."""

import torch
from torch import Tensor


def without_autocast(like: Tensor) -> torch.autocast:
    """A context in which products of float32 matrices on the device of `like` stay float32."""
    return torch.autocast(like.device.type, enabled=False)


def reciprocal(x: Tensor) -> Tensor:
    """`1 / x`, and 0 of 0; with a gradient there too."""
    return torch.where(x == 0, 0.0, 1 / torch.where(x == 0, 1.0, x))


def are_finite(matrices: Tensor) -> Tensor:
    """Test `(…, 1, 1)` whether every entry of each matrix of `(…, m, n)` is finite."""
    return matrices.isfinite().all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)


def identity_like(matrix: Tensor) -> Tensor:
    """The identity, in the shape `(…, n, n)`, dtype and device of `matrix`."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return eye.expand_as(matrix)


def frobenius_norm(matrix: Tensor) -> Tensor:
    """`‖A‖_F` of each matrix of `(…, m, n)`, as `(…, 1, 1)`."""
    # The squares of entries beyond 1e19 or below 1e-19 are lost in float32.
    largest = matrix.detach().abs().amax(dim=(-2, -1), keepdim=True)
    scale = torch.where(largest > 0, largest, 1.0)
    return scale * torch.linalg.matrix_norm(matrix / scale, keepdim=True)


def zero_level(lambdas: Tensor, dtype: torch.dtype) -> Tensor:
    """Threshold `(…, 1)` that an eigenvalue must exceed to be distinguished from zero.

    Rounding the entries of a symmetric matrix to their dtype moves an eigenvalue by at most half of
    `eps(dtype) ‖A‖_F`, finding the eigenvalues in float64 by about `n eps(float64) λmax`.

    Args:
        lambdas: Eigenvalues `(…, n)`, found in float64.
        dtype: That of the matrix before it was converted to float64.
    """
    rounding = torch.finfo(dtype).eps * frobenius_norm(lambdas[..., None, :])[..., 0]
    solver = lambdas.shape[-1] * torch.finfo(torch.float64).eps * lambdas.amax(-1, keepdim=True)
    return torch.maximum(rounding, solver)
