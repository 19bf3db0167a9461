"""Argument checks of the matrix functions."""

import torch
from torch import Tensor
from torch.masked import MaskedTensor

_REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COMPLEX = (torch.complex32, torch.complex64, torch.complex128)
_SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
_UNSIGNED = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64)
# Not among them: float8 and other types that torch stores but does not compute in.
_COMPUTED = frozenset((*_REAL, *_COMPLEX, *_SIGNED, *_UNSIGNED))


def check_dense(name: str, tensor: Tensor, *, allow_meta: bool = False) -> None:
    """Raise unless each entry of a tensor is a number by itself.

    Reads no entry, so that nothing waits for a GPU.

    Args:
        name: Name of the argument, for the message.
        tensor: Value of the argument.
        allow_meta: Whether to accept a tensor on the meta device, which has a shape but no entries.

    Raises:
        ValueError: If `tensor` is no tensor, or is sparse, nested, masked, quantised, on the meta
            device, or of a type that torch stores but does not compute in, such as float8.

    Examples:
        >>> check_dense("matrix", torch.eye(2).to_sparse())
        Traceback (most recent call last):
        ValueError: matrix must be a dense tensor, got torch.sparse_coo
    """
    if kind := _kind(tensor, allow_meta):
        raise ValueError(f"{name} must be a dense tensor, got {kind}")
    if tensor.dtype not in _COMPUTED:
        kind = "quantised " if tensor.is_quantized else ""
        raise ValueError(
            f"{name} must have a dtype that torch computes in, got {kind}{tensor.dtype}: convert it"
        )


def check_floating(name: str, tensor: Tensor, *, allow_meta: bool = False) -> None:
    """Raise as `check_dense`, and unless a tensor is floating point."""
    check_dense(name, tensor, allow_meta=allow_meta)
    if not tensor.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {tensor.dtype}")


def check_matrix(name: str, matrix: Tensor) -> None:
    """Raise `ValueError` unless `matrix` is a dense `(…, m, n)` and floating point."""
    check_floating(name, matrix)
    if matrix.ndim < 2:
        shape = tuple(matrix.shape)
        raise ValueError(f"{name} must have at least 2 dimensions, (…, m, n), got shape {shape}")


def check_covariance(covariance: Tensor) -> None:
    """Raise `ValueError` unless `covariance` is `(…, n, n)`, `n ≥ 1`, and floating point."""
    check_matrix("covariance", covariance)
    if covariance.shape[-1] != covariance.shape[-2] or covariance.shape[-1] == 0:
        raise ValueError(
            "covariance must be square and not empty, (…, n, n), "
            f"got shape {tuple(covariance.shape)}"
        )


def _kind(tensor: object, allow_meta: bool) -> str:
    """Kind of a tensor that is not dense, for a message; empty for a dense one."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    if isinstance(tensor, MaskedTensor):
        return "a masked tensor"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return str(tensor.layout)
    if tensor.is_meta and not allow_meta:
        return "a tensor on the meta device, which has no entries"
    return ""
