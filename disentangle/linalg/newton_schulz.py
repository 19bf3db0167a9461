"""Square roots by the coupled Newton–Schulz iteration: matrix products only.

`Y₀ = A/‖A‖_F`, `Z₀ = I`, `T = (3I − Z Y)/2`, `Y ← Y T`, `Z ← T Z`: `Y → (A/‖A‖_F)^½`, `Z` to its
inverse. An eigenvalue `p` of `Z Y` starts at `λ/‖A‖_F` and becomes `p (3 − p)² / 4`; the relative
error of both roots along it is `1 − √p`.

Source: Higham, Functions of Matrices, 2008, chapter 6,
https://doi.org/10.1137/1.9780898717778; Li, Xie, Wang and Gao, CVPR 2018 (iSQRT-COV),
https://arxiv.org/abs/1712.01034, which takes 5 iterations.
"""

import math
from functools import partial

import torch
from torch import Tensor

from disentangle.linalg.custom_function import call, operate
from disentangle.linalg.primitives import frobenius_norm, identity_like, without_autocast


def default_iterations(dtype: torch.dtype) -> int:
    """As many as the dtype bears: 5 in bfloat16, 8 in half, 19 in float32, 44 in float64.

    An eigenvalue near zero grows 9/4 times with each, one that rounding has made negative too, and
    beyond −1 it diverges. Rounding the entries makes `−½ eps(dtype) ‖A‖_F` at most.
    """
    return int(math.log(1 / torch.finfo(dtype).eps, 9 / 4))


def newton_schulz_root(A: Tensor, inverse: bool, iterations: int) -> Tensor:
    """`A^½` or `A^-½` after a fixed number of iterations.

    Args:
        A: `(…, n, n)`, symmetric, float32 or float64.
        inverse: Whether to return the inverse square root.
        iterations: How many, at least 1.
    """
    norm = frobenius_norm(A)
    nonzero = torch.where(norm > 0, norm, 1.0)
    root = call(_Iterate, A / nonzero, inverse, iterations)
    return root / norm.sqrt() if inverse else root * nonzero.sqrt()


class _Iterate(torch.autograd.Function):
    """`Y` or `Z` after `count` iterations from `B`.

    Both are polynomials in `B`, so that their derivative at a symmetric `B` is its own adjoint: the
    gradient is the derivative in the direction `G`, found by the same iteration again. Autograd
    would keep three matrices of each iteration.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(B: Tensor, inverse: bool, count: int) -> Tensor:
        Y, Z = B, identity_like(B)
        for _ in range(count):
            T = _half_three_minus(Z @ Y)
            Y, Z = Y @ T, T @ Z
        return Z if inverse else Y

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        B, ctx.inverse, ctx.count = inputs
        ctx.save_for_backward(B)
        ctx.save_for_forward(B)

    @staticmethod
    def backward(ctx, G: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (B,) = ctx.saved_tensors
        return _derivative(B, G, ctx.inverse, ctx.count), None, None

    @staticmethod
    def tangent(ctx, dB: Tensor, *_: None) -> Tensor:  # type: ignore[no-untyped-def]
        derivative = partial(_derivative, inverse=ctx.inverse, count=ctx.count)
        return operate(derivative, *ctx.saved_tensors, dB)


def _derivative(B: Tensor, dB: Tensor, inverse: bool, count: int) -> Tensor:
    """The derivative of `Y` or `Z` after `count` iterations from `B` in the direction `dB`."""
    Y, Z, dY, dZ = B, identity_like(B), dB, torch.zeros_like(dB)
    with without_autocast(B):
        for _ in range(count):
            T = _half_three_minus(Z @ Y)
            dT = -0.5 * (dZ @ Y + Z @ dY)
            dY, dZ = dY @ T + Y @ dT, dT @ Z + T @ dZ
            Y, Z = Y @ T, T @ Z
    return dZ if inverse else dY


def _half_three_minus(P: Tensor) -> Tensor:
    return 1.5 * identity_like(P) - 0.5 * P
