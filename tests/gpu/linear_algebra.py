"""Compare polar factors, matrix roots and their gradients with float64 on the CPU.

The references are closed forms in the basis of a float64 decomposition of the input, which is
rounded to its dtype before.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from disentangle.linalg import (
    SQUARE_ROOT_METHODS,
    condition_number,
    effective_rank,
    matrix_inverse_sqrt,
    matrix_sqrt,
    polar_factor,
    polar_factors,
)
from tests.benchmarks.bench_polar_factor import make_matrix
from tests.benchmarks.bench_square_root import make_basis, spectrum

from .harness import Checks, Setting, check_error, check_pair, require

FLOAT32, FLOAT64 = torch.float32, torch.float64
CONDITIONS = (1.0, 10.0, 1e3, 1e6)
SHAPES = [(6, 64), (64, 6), (8, 8), (6, 8192), (64, 576), (3, 6, 100)]
WIDEST = (6, 524_288)  # basis of EigenGAN-256
ROOTS = {"square root": matrix_sqrt, "inverse square root": matrix_inverse_sqrt}
# Polynomial and rational approximations; their gradient is an approximation of its own.
APPROXIMATE = ("mtp", "mpa")
ITERATED = ("newton_schulz", "auto")


def checks(setting: Setting) -> Checks:
    """Yield the checks of this part."""
    for shape in SHAPES if setting.quick else [*SHAPES, WIDEST]:
        name = " × ".join(map(str, shape))
        for dtype in (FLOAT32, FLOAT64):
            yield (
                f"polar factor {name}, {dtype}",
                partial(check_polar, shape, dtype, setting.device),
            )
    for dtype in (torch.float16, torch.bfloat16):
        yield f"polar factor 6 × 64, {dtype}", partial(check_half, dtype, setting.device)
    yield "polar factors of several matrices at once", partial(check_several, setting.device)
    yield "polar factor of zero and of non-finite matrices", partial(check_edges, setting.device)
    for name in ROOTS:
        for method in SQUARE_ROOT_METHODS:
            for dtype in (FLOAT32, FLOAT64):
                yield (
                    f"{name} by {method}, {dtype}",
                    partial(check_root, name, method, dtype, setting),
                )
    yield "roots of non-finite matrices", partial(check_root_edges, setting.device)
    yield "condition number and effective rank", partial(check_spectrum, setting.device)


# Polar factor


def check_polar(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> str:
    """Compare value and gradient at each condition number; at 1 all singular values are equal."""
    found = []
    for condition in CONDITIONS:
        matrix = conditioned(shape, condition).to(dtype)
        G = torch.randn(shape, dtype=FLOAT64)
        got = with_gradient(polar_factor, matrix.to(device), G.to(device, dtype))
        expected = reference_polar(matrix.double(), G.to(dtype).double(), dtype)
        tolerances = polar_tolerance(condition, max(shape), dtype)
        found.append(check_pair(f"condition {condition:.0e}", got, expected, tolerances))
    return f"errors of value and gradient at {'; '.join(found)}"


def polar_tolerance(condition: float, columns: int, dtype: torch.dtype) -> tuple[float, float]:
    """Largest errors of value and gradient: the Gram matrix squares the condition number.

    At condition number 1e6 the smallest singular value is near the threshold below which it counts
    as zero; in the widest matrix it is at the threshold, where the gradient is documented to be
    smaller than the derivative of the value.
    """
    if condition > 1e3:
        return 2e-4, 2e-2 if columns < 1e5 else 0.5
    return (1e-6, 2e-6) if dtype == FLOAT32 else (1e-9, 1e-7)


def conditioned(shape: tuple[int, ...], condition: float) -> Tensor:
    """Sample a float64 matrix with log-spaced singular values from 1 to 1 / condition."""
    *batch, m, n = shape
    matrices = [
        make_matrix(min(m, n), max(m, n), condition, dtype=FLOAT64)
        for _ in range(torch.Size(batch).numel())
    ]
    wide = torch.stack(matrices).reshape(*batch, min(m, n), max(m, n))
    return wide if m <= n else wide.mT


def reference_polar(A: Tensor, G: Tensor, dtype: torch.dtype = FLOAT32) -> tuple[Tensor, Tensor]:
    """Compute the polar factor of `A` and its gradient for `G`, also at equal singular values.

    In the singular bases the derivative is divided by `σᵢ + σⱼ`, never by `σᵢ − σⱼ`: Higham,
    Functions of Matrices, 2008, chapter 8.
    """
    if A.shape[-2] > A.shape[-1]:
        value, gradient = reference_polar(A.mT, G.mT, dtype)
        return value.mT, gradient.mT
    U, sigmas, Vh = torch.linalg.svd(A, full_matrices=False)
    C = U.mT @ G @ Vh.mT
    K = (C - C.mT) / (sigmas[..., :, None] + sigmas[..., None, :])
    outside = U.mT @ G - C @ Vh
    weights = slope(sigmas / threshold_of(sigmas, A.shape[-1], dtype))
    return (U * weights[..., None, :]) @ Vh, U @ (K @ Vh + outside / sigmas[..., None])


def threshold_of(sigmas: Tensor, n: int, dtype: torch.dtype) -> Tensor:
    """Documented threshold below which a singular value counts as zero, for `n` columns."""
    share = max(torch.finfo(dtype).eps, 2 * n**0.25 * torch.finfo(FLOAT64).eps ** 0.5)
    return share * torch.linalg.vector_norm(sigmas, dim=-1, keepdim=True)


def slope(t: Tensor) -> Tensor:
    """Value on a GPU of a singular value of `t` times the threshold, `1 − 6.6 t⁻⁶ + …`."""
    u = 1 / (1 + t**2)
    return (1 - u) ** 2.5 * (1 + 2.5 * u + 4.375 * u**2)


def with_gradient(
    function: Callable[[Tensor], Tensor], argument: Tensor, G: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the value of a function, and the gradient of `⟨G, value⟩`."""
    leaf = argument.detach().requires_grad_()
    value = function(leaf)
    return value.detach(), torch.autograd.grad(value, leaf, G)[0]


def check_half(dtype: torch.dtype, device: torch.device) -> str:
    """Check that half precision is rounded only once, in the result."""
    matrix = conditioned((6, 64), 10.0).to(dtype)
    expected, _ = reference_polar(matrix.double(), matrix.double())
    got = polar_factor(matrix.to(device))
    require(got.dtype == dtype, f"a result in {dtype}", got.dtype)
    return f"error {check_error('polar factor', got, expected, 2 * torch.finfo(dtype).eps)}"


def check_several(device: torch.device) -> str:
    """Compare several matrices, which share one decomposition on a GPU."""
    matrices = [conditioned((6, n), 10.0).float() for n in (64, 512, 4096)]
    matrices += [conditioned((30, 6), 10.0).float(), torch.zeros(6, 9)]
    errors = []
    for got, A in zip(polar_factors([A.to(device) for A in matrices]), matrices, strict=True):
        expected = reference_polar(A.double(), A.double())[0] if A.any() else A
        errors.append(check_error(f"polar factor {tuple(A.shape)}", got, expected, 1e-6))
    return f"errors {', '.join(errors)}"


def check_edges(device: torch.device) -> str:
    """Check that zero stays zero, and that NaN stays within its matrix of a batch."""
    batch = conditioned((4, 6, 64), 10.0).float()
    expected, _ = reference_polar(batch.double(), batch.double())
    batch[0], expected[0] = 0, 0
    for i, entry in ((1, torch.nan), (2, torch.inf)):
        batch[i, 3, 4] = entry
        expected[i] = torch.nan
    return f"error {check_error('polar factor', polar_factor(batch.to(device)), expected, 1e-6)}"


# Roots


def check_root(name: str, method: str, dtype: torch.dtype, setting: Setting) -> str:
    """Compare value and gradient at each condition number, with a pair of equal eigenvalues."""
    n, batch = (8, 3) if setting.quick else (64, 16)
    root = partial(ROOTS[name], method=method)
    found = []
    for condition in CONDITIONS:
        lambdas = spectrum(n, condition)
        if method != "svd_pade":
            lambdas[1] = lambdas[0]
        Q = make_basis(n, batch)
        A = ((Q * lambdas) @ Q.mT).to(dtype)
        A = (A + A.mT) / 2
        G = torch.randn(batch, n, n, dtype=FLOAT64).to(dtype)
        G = G + G.mT
        got = with_gradient(root, A.to(setting.device), G.to(setting.device))
        expected = reference_root(A.double(), G.double(), method, "inverse" in name)
        if method in APPROXIMATE:  # no closed form: the same code in float64
            expected = expected[0], with_gradient(root, A.double(), G.double())[1]
        tolerances = root_tolerance(method, dtype, condition)
        found.append(check_pair(f"condition {condition:.0e}", got, expected, tolerances))
    return f"errors of value and gradient at {'; '.join(found)}"


def root_tolerance(method: str, dtype: torch.dtype, condition: float) -> tuple[float, float]:
    """Largest errors of value and gradient.

    Roots by eigendecomposition are computed in float64; the absolute rounding error of the smallest
    eigenvalue is that of the largest. Iterations have an error of their own beyond rounding.
    """
    single = dtype == FLOAT32
    if method in APPROXIMATE:
        return (2e-5, 1e-4) if single else (1e-11, 1e-10)
    if method in ITERATED:
        value = max(2e-6, 5e-8 * condition) if single else max(1e-13, 1e-15 * condition)
        return value, 6 * value
    value = 2e-7 if single else max(1e-12, 2e-14 * condition)
    # Rounding decides which eigenvalues are equal, between which `svd_pade` passes no gradient.
    undecided = method == "svd_pade" and condition == 1
    return value, math.inf if undecided else 3 * value


def reference_root(A: Tensor, G: Tensor, method: str, inverse: bool) -> tuple[Tensor, Tensor]:
    """Compute the root of `A` and its gradient for `G` from the eigendecomposition.

    `svd_taylor` multiplies the gradient between two eigenvectors by `1 − r^101`, where `r` is the
    ratio of their eigenvalues.
    """
    lambdas, Q = torch.linalg.eigh(A)
    s = lambdas.sqrt()
    divided = 1 / (s[..., :, None] + s[..., None, :])
    ratio = torch.minimum(lambdas[..., :, None], lambdas[..., None, :])
    ratio = ratio / torch.maximum(lambdas[..., :, None], lambdas[..., None, :])
    off_diagonal = 1 - torch.eye(A.shape[-1], dtype=A.dtype)
    if method == "svd_taylor":
        divided = divided * (1 - off_diagonal * ratio**101)
    if inverse:
        s, divided = 1 / s, -divided / (s[..., :, None] * s[..., None, :])
    if method in APPROXIMATE:
        s = approximate_root(lambdas, method, inverse)
    return (Q * s[..., None, :]) @ Q.mT, Q @ (divided * (Q.mT @ G @ Q)) @ Q.mT


def approximate_root(lambdas: Tensor, method: str, inverse: bool) -> Tensor:
    """Apply the Taylor polynomial of `mtp` or the Padé approximant of `mpa` to eigenvalues."""
    norm = lambdas.square().sum(-1, keepdim=True).sqrt()
    b = lambdas / norm
    if method == "mtp":
        signs = [1.0 if inverse else 1 / (1 - 2 * k) for k in range(11)]
        value = sum(
            sign * math.comb(2 * k, k) / 4**k * (1 - b) ** k for k, sign in enumerate(signs)
        )
    else:
        r = b.sqrt()
        plus, minus = (1 + r) ** 11, (1 - r) ** 11
        value = r * (plus + minus) / (plus - minus)
        value = 1 / value if inverse else value
    return value / norm.sqrt() if inverse else value * norm.sqrt()


def check_root_edges(device: torch.device) -> str:
    """Check for every method that NaN stays within its matrix of a batch, and zero stays zero."""
    Q = make_basis(6, 3)
    A = ((Q * spectrum(6, 4.0)) @ Q.mT).float()
    errors = []
    for method in SQUARE_ROOT_METHODS:
        expected = matrix_sqrt(A.double(), method)
        spoilt = A.clone()
        spoilt[1, 2, 2], expected[1] = torch.nan, torch.nan
        spoilt[2] = expected[2] = 0
        errors.append(check_error(method, matrix_sqrt(spoilt.to(device), method), expected, 1e-5))
    return f"errors {', '.join(errors)}"


def check_spectrum(device: torch.device) -> str:
    """Compare condition numbers, one of them infinite, and effective ranks."""
    diagonals = torch.tensor([[1.0, 1.0, 1.0], [4.0, 2.0, 1.0], [1.0, 1e-6, 1e-6], [1.0, 1.0, 0.0]])
    covariances = diagonals.diag_embed().to(device)
    conditions = condition_number(covariances).cpu()
    expected = torch.tensor([1.0, 4.0, 1e6, torch.inf])
    error = check_error("condition number", conditions, expected, 1e-6)
    shares = diagonals.double() / diagonals.double().sum(-1, keepdim=True)
    ranks = torch.special.entr(shares).sum(-1).exp()
    return (
        f"errors {error}, {check_error('effective rank', effective_rank(covariances), ranks, 1e-6)}"
    )
