"""Square roots by eigendecomposition, with a backward of their own: exact or damped.

The derivative `X` of `S = A^½` in the direction `E` solves the Lyapunov equation `S X + X S = E`.
In the basis of the eigenvectors, with `s = λ^½`, that is `X_ij = E_ij / (s_i + s_j)`, the divided
difference of the root: nothing is divided by `λi − λj`, so that it is finite and right at equal and
at nearly equal eigenvalues. As an equation in `S` it can be differentiated again.

Source: Higham, Functions of Matrices, 2008, theorem 3.11 (Daleckii and Krein) and chapter 6,
https://doi.org/10.1137/1.9780898717778.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from disentangle.linalg.custom_function import NoSecondDerivativeError, call, operate
from disentangle.linalg.primitives import are_finite, reciprocal, zero_level

# Of the gap `1 − λj/λi`, `λj ≤ λi`, of two eigenvalues: what a divided difference is multiplied by.
Damping = Callable[[Tensor], Tensor]

TAYLOR_DEGREE = 100


def taylor_damping(gaps: Tensor) -> Tensor:
    """`1 − r^101` of the ratio `r = λj/λi`: SVD-Taylor.

    `1 / (λi − λj) = 1/λi · Σ r^k` is cut after `k = 100`, as in the code of the paper, which leaves
    `1 − r^101` of the sum.

    Source: Song, Sebe and Wang, ICCV 2021, https://arxiv.org/abs/2105.02498, and its code; Wang et
    al., TPAMI 2021, https://arxiv.org/abs/2104.03821, with `k ≤ 9`.
    """
    return 1 - (1 - gaps) ** (TAYLOR_DEGREE + 1)


def pade_damping(gaps: Tensor) -> Tensor:
    """1, but 0 at equal eigenvalues: SVD-Padé.

    Every diagonal Padé approximant of the geometric series *is* its sum `1 / (1 − r)`: the [50/50]
    of the paper differs from it by the rounding of its 102 coefficients. It is infinite only at
    `r = 1`, where the code of the paper puts a finite number, and the product of that with
    `f(λi) − f(λj) = 0` is 0.

    Source: Song, Sebe and Wang, ICCV 2021, https://arxiv.org/abs/2105.02498, and its code.
    """
    return (gaps / torch.finfo(gaps.dtype).eps).clamp(max=1)


def eigen_root(
    A: Tensor, inverse: bool, dtype: torch.dtype, damping: Damping | None = None
) -> Tensor:
    """`A^½` or `A^-½` by a float64 eigendecomposition.

    Args:
        A: `(…, n, n)`, symmetric, float32 or float64.
        inverse: Whether to return the inverse square root.
        dtype: The dtype that the entries of `A` had been rounded to.
        damping: None for the exact derivative.
    """
    # In float32 LAPACK loses 3e-4 of the inverse root at condition number 1e4.
    S, s, U = call(_Root, A.double(), dtype, damping)
    return (call(_Inverse, S, s, U) if inverse else S).to(A.dtype)


class _Root(torch.autograd.Function):
    """`S = A^½`, and its eigenvalues and eigenvectors."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        A: Tensor, dtype: torch.dtype, damping: Damping | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        finite = are_finite(A)
        # `eigh` raises at an entry that is not finite.
        lambdas, U = torch.linalg.eigh(torch.where(finite, A, 0.0))
        lambdas = torch.where(lambdas > zero_level(lambdas, dtype), lambdas, 0.0)
        s = torch.where(finite[..., 0], lambdas, torch.nan).sqrt()
        return _spectral(U, s), s, U

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.damping = inputs[2]
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)

    @staticmethod
    def backward(ctx, G: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        S, s, U = ctx.saved_tensors
        return call(_Lyapunov, S, G, s, U, ctx.damping), None, None

    @staticmethod
    def tangent(ctx, dA: Tensor, *_: None) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return _Root.backward(ctx, dA)


class _Lyapunov(torch.autograd.Function):
    """`X` with `S X + X S = C`; zero from null direction to null direction."""

    generate_vmap_rule = True

    @staticmethod
    def forward(S: Tensor, C: Tensor, s: Tensor, U: Tensor, damping: Damping | None) -> Tensor:
        F = reciprocal(s[..., :, None] + s[..., None, :])
        if damping is not None:
            F = F * damping(_gaps(s**2))
        return U @ (F * (U.mT @ C @ U)) @ U.mT

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        S, _, s, U, ctx.damping = inputs
        # None in place of zeros tells what is not differentiated by.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(S, output, s, U)
        ctx.save_for_forward(S, output, s, U)

    # S dX + dX S = dC − dS X − X dS, and the operator on the left is its own adjoint.

    @staticmethod
    def backward(ctx, V: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        if V is None:
            return (None,) * 5
        S, X, s, U = ctx.saved_tensors
        P = call(_Lyapunov, S, V, s, U, ctx.damping)
        if not ctx.needs_input_grad[0]:
            return None, P, None, None, None
        _check_exact(ctx.damping)
        return -(P @ X.mT + X.mT @ P), P, None, None, None

    @staticmethod
    def tangent(ctx, dS: Tensor | None, dC: Tensor | None, *_: None) -> Tensor:  # type: ignore[no-untyped-def]
        S, X, s, U = ctx.saved_tensors
        if dS is not None:
            _check_exact(ctx.damping)
            dC = operate(_right_side, torch.zeros_like(X) if dC is None else dC, dS, X)
        return call(_Lyapunov, S, dC, s, U, ctx.damping)


class _Inverse(torch.autograd.Function):
    """The pseudo-inverse `R` of `S`, differentiated at constant rank."""

    generate_vmap_rule = True

    @staticmethod
    def forward(S: Tensor, s: Tensor, U: Tensor) -> Tensor:
        return _spectral(U, reciprocal(s))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(output, *inputs[1:])
        ctx.save_for_forward(output, *inputs[1:])

    @staticmethod
    def backward(ctx, G: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return _change_inverse(ctx.saved_tensors[0], G, _null_space(ctx)), None, None

    @staticmethod
    def tangent(ctx, dS: Tensor, *_: None) -> Tensor:  # type: ignore[no-untyped-def]
        return operate(_change_inverse, ctx.saved_tensors[0], dS, _null_space(ctx))


def _right_side(dC: Tensor, dS: Tensor, X: Tensor) -> Tensor:
    """Right-hand side of the equation for `dX`, `S dX + dX S = …`."""
    return dC - dS @ X - X @ dS


def _change_inverse(R: Tensor, dS: Tensor, null: Tensor) -> Tensor:
    """The change of the pseudo-inverse `R` with a symmetric change of `S`; its own adjoint.

    Args:
        R: `(…, n, n)`.
        dS: `(…, n, n)`.
        null: The projection to the null space of `S`, `(…, n, n)`.
    """
    R_dS = R @ dS
    turned = R @ R_dS @ null
    return turned + turned.mT - R_dS @ R


def _null_space(ctx) -> Tensor:  # type: ignore[no-untyped-def]
    _, s, U = ctx.saved_tensors
    return _spectral(U, (s == 0).to(s.dtype))


def _check_exact(damping: Damping | None) -> None:
    if damping is not None:
        raise NoSecondDerivativeError("a root by svd_*", ": choose 'eigh' or 'newton_schulz'")


def _spectral(U: Tensor, values: Tensor) -> Tensor:
    return (U * values[..., None, :]) @ U.mT


def _gaps(lambdas: Tensor) -> Tensor:
    """`|λi − λj| / max(λi, λj)`, `(…, n, n)`; 1 on the diagonal, which is not approximated."""
    a, b = lambdas[..., :, None], lambdas[..., None, :]
    gaps = (a - b).abs() * reciprocal(torch.maximum(a, b))
    diagonal = torch.eye(lambdas.shape[-1], dtype=torch.bool, device=lambdas.device)
    return torch.where(diagonal, 1.0, gaps)
