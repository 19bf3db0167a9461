"""Square roots by a polynomial (MTP) or a rational function (MPA), and a Lyapunov backward.

With `B = A/‖A‖_F`, whose eigenvalues lie in [0, 1]: the Taylor polynomial of degree 10 of
`(1 − x)^±½` at `x = 1 − B`, or the `[5/5]` Padé approximant of `(1 − x)^½` and its reciprocal.

The backward is *not* the derivative of either. `X` with `A^½ X + X A^½ = G` is the gradient of the
exact root; here the approximate root stands for the exact one, and 8 iterations for the matrix sign
solve the equation: with `s = g⁸(b)` for an eigenvalue `b` of the normalised root,
`g(b) = b (3 − b²)/2`, the answer is `(s_i + s_j)/2` of the right one.

Source: Song, Sebe and Wang, ICLR 2022, https://arxiv.org/abs/2201.08663; for the inverse root,
TPAMI 2022, https://arxiv.org/abs/2201.12543.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from disentangle.linalg.custom_function import NoSecondDerivativeError, call
from disentangle.linalg.primitives import frobenius_norm, identity_like, without_autocast

# From B, `(…, n, n)` with eigenvalues in [0, 1], and whether the inverse root is asked for.
Approximation = Callable[[Tensor, bool], Tensor]

TAYLOR_DEGREE = 10
PADE_DEGREE = 5
SIGN_ITERATIONS = 8


def taylor_root(B: Tensor, inverse: bool) -> Tensor:
    """MTP: `Σ C(2k, k)/4^k x^k` for the inverse root, each term by `1 − 2k` for the root."""
    x = identity_like(B) - B
    central = [math.comb(2 * k, k) / 4**k for k in range(TAYLOR_DEGREE + 1)]
    if inverse:
        return _polynomial(central, x)
    return _polynomial([c / (1 - 2 * k) for k, c in enumerate(central)], x)


def pade_root(B: Tensor, inverse: bool) -> Tensor:
    """MPA: the even by the odd part of `(1 + s)^11`, `s² = B`, times `s`.

    The same function as in the paper, in powers of `B` in place of `1 − B`: all coefficients are
    positive, and nothing cancels.
    """
    odd_power = 2 * PADE_DEGREE + 1
    even = _polynomial([math.comb(odd_power, 2 * k) for k in range(PADE_DEGREE + 1)], B)
    odd = _polynomial([math.comb(odd_power, 2 * k + 1) for k in range(PADE_DEGREE + 1)], B)
    divisor, dividend = (even, odd) if inverse else (odd, even)
    # Both are positive definite: 1 and 11 are their constants. `cholesky` would read its error code
    # on the host, and the LU factors of many large matrices hang in some builds of MKL.
    return torch.cholesky_solve(dividend, torch.linalg.cholesky_ex(divisor)[0])


def polynomial_root(A: Tensor, inverse: bool, approximation: Approximation) -> Tensor:
    """`A^½` or `A^-½`, approximately.

    Args:
        A: `(…, n, n)`, symmetric, float32 or float64.
        inverse: Whether to return the inverse square root.
        approximation: `taylor_root` or `pade_root`.
    """
    return call(_PolynomialRoot, A, inverse, approximation)[0]


class _PolynomialRoot(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(A: Tensor, inverse: bool, approximation: Approximation) -> tuple[Tensor, Tensor]:
        norm = frobenius_norm(A)
        root = approximation(A / torch.where(norm > 0, norm, 1.0), inverse)
        return root / norm.sqrt() if inverse else root * norm.sqrt(), norm

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        _, ctx.inverse, _ = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)
        ctx.save_for_forward(*output)

    @staticmethod
    def backward(ctx, G: Tensor, _: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return call(_Gradient, *ctx.saved_tensors, G, ctx.inverse), None, None

    @staticmethod
    def tangent(ctx, dA: Tensor, *_: None) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return call(_Gradient, *ctx.saved_tensors, dA, ctx.inverse), None


class _Gradient(torch.autograd.Function):
    """The approximate derivative of a root in a symmetric direction; its own adjoint."""

    generate_vmap_rule = True

    @staticmethod
    def forward(root: Tensor, norm: Tensor, G: Tensor, inverse: bool) -> Tensor:
        with without_autocast(root):
            if not inverse:
                return _lyapunov(root, G, norm.sqrt())
            # A^-½ X + X A^-½ = −A^-1 G A^-1
            return _lyapunov(root, -_sandwich(root @ root, G), frobenius_norm(root))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        # None in place of zeros tells what is not differentiated by.
        ctx.set_materialize_grads(False)
        root, norm, _, ctx.inverse = inputs
        ctx.save_for_backward(root, norm)
        ctx.save_for_forward(root, norm)

    @staticmethod
    def backward(ctx, V: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        if V is None:
            return (None,) * 4
        if ctx.needs_input_grad[0]:
            raise _no_second_derivative()
        return None, None, call(_Gradient, *ctx.saved_tensors, V, ctx.inverse), None

    @staticmethod
    def tangent(ctx, droot: Tensor | None, _: None, dG: Tensor, *__: None) -> Tensor:  # type: ignore[no-untyped-def]
        if droot is not None:
            raise _no_second_derivative()
        return call(_Gradient, *ctx.saved_tensors, dG, ctx.inverse)


def _no_second_derivative() -> NoSecondDerivativeError:
    return NoSecondDerivativeError("a root by mtp or mpa", ": choose 'eigh' or 'newton_schulz'")


def _lyapunov(R: Tensor, C: Tensor, scale: Tensor) -> Tensor:
    """`X` with `R X + X R = C`, `C` symmetric, for `R/scale` with eigenvalues in (0, 1]."""
    nonzero = torch.where(scale > 0, scale, 1.0)
    b, c = R / nonzero, C / nonzero
    for _ in range(SIGN_ITERATIONS):
        square = b @ b
        product = c @ square
        # (c (3 − b²) − b² c + b c b) / 2, where b² c is the transpose of c b².
        c = 0.5 * (3 * c - product - product.mT + _sandwich(b, c))
        b = 0.5 * (3 * b - b @ square)
    return 0.5 * c


def _polynomial(coefficients: Sequence[float], X: Tensor) -> Tensor:
    """`Σ c_k X^k`, three coefficients at a time: half the products of Horner's rule.

    Source: Paterson and Stockmeyer, SIAM Journal on Computing 2 (1973).
    """
    square = X @ X
    powers = (identity_like(X), X, square)
    cube = square @ X
    result = torch.zeros_like(X)
    for start in reversed(range(0, len(coefficients), len(powers))):
        chunk = coefficients[start : start + len(powers)]
        terms = sum(c * power for c, power in zip(chunk, powers, strict=False))
        result = result @ cube + terms
    return result


def _sandwich(outer: Tensor, inner: Tensor) -> Tensor:
    return outer @ inner @ outer
