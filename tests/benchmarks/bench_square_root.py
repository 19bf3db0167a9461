"""Square roots of covariances by every method: error against condition number, and time."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from disentangle.linalg import SQUARE_ROOT_METHODS, matrix_inverse_sqrt, matrix_sqrt

from .timing import median_seconds_each, print_table

METHODS = [method for method in SQUARE_ROOT_METHODS if method != "auto"]
CONDITIONS = [10.0**power for power in range(9)]
RATIOS = (0.5, 0.9, 0.95, 0.99, 0.999, 1 - 1e-6, 1 - 1e-12, 1.0)
SIZES = ((16, 64), (64, 16), (256, 8))
Root = Callable[[Tensor, str], Tensor]


def make_basis(n: int, batch: int) -> Tensor:
    square = torch.randn(batch, n, n, dtype=torch.float64)
    return torch.linalg.qr(square)[0]


def spectrum(n: int, condition: float) -> Tensor:
    """Eigenvalues from 1 down to `1 / condition`, evenly in their logarithm."""
    return condition ** -torch.linspace(0, 1, n, dtype=torch.float64)


def exact(Q: Tensor, lambdas: Tensor, G: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """The root of `Q diag(λ) Qᵀ` and its gradient, from the closed form in its own basis."""
    s = lambdas.sqrt()
    divided = 1 / (s[:, None] + s[None, :])
    if inverse:
        s, divided = 1 / s, -divided / (s[:, None] * s[None, :])
    return (Q * s) @ Q.mT, Q @ (divided * (Q.mT @ G @ Q)) @ Q.mT


def with_gradient(root: Root, A: Tensor, G: Tensor, method: str) -> tuple[Tensor, Tensor]:
    leaf = A.detach().requires_grad_()
    value = root(leaf, method)
    return value.detach(), torch.autograd.grad(value, leaf, G)[0]


def error(approximation: Tensor, truth: Tensor) -> str:
    return f"{((approximation.double() - truth).norm() / truth.norm()).item():.0e}"


def errors(root: Root, dtype: torch.dtype, n: int = 64, batch: int = 16) -> list[list[str]]:
    Q = make_basis(n, batch)
    G = torch.randn_like(Q)
    G = G + G.mT
    rows = []
    for condition in CONDITIONS:
        lambdas = spectrum(n, condition)
        truth = exact(Q, lambdas, G, root is matrix_inverse_sqrt)
        A = ((Q * lambdas) @ Q.mT).to(dtype)
        pairs = [with_gradient(root, A, G.to(dtype), method) for method in METHODS]
        cells = [" ".join(map(error, pair, truth)) for pair in pairs]
        rows.append([f"{condition:.0e}", *cells])
    return rows


def ratio_errors() -> list[list[str]]:
    """Of the gradient from one eigenvector to another, in float64."""
    G = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    Q = torch.eye(2, dtype=torch.float64)
    rows = []
    for ratio in RATIOS:
        lambdas = torch.tensor([1.0, ratio], dtype=torch.float64)
        _, truth = exact(Q, lambdas, G, inverse=False)
        methods = ("eigh", "svd_pade", "svd_taylor")
        gradients = [with_gradient(matrix_sqrt, lambdas.diag(), G, m)[1] for m in methods]
        cells = [error(gradient, truth) for gradient in gradients]
        rows.append([f"1 - {1 - ratio:.0e}", *cells, f"{ratio**101:.0e}"])
    return rows


def time_row(name: str, A: Tensor) -> list[str]:
    """Milliseconds of the inverse root and of the inverse root with its gradient."""
    G = torch.ones_like(A)
    values = [partial(matrix_inverse_sqrt, A, method) for method in METHODS]
    both = [partial(with_gradient, matrix_inverse_sqrt, A, G, method) for method in METHODS]
    seconds = median_seconds_each([*values, *both], repeats=7)
    forward, total = seconds[: len(METHODS)], seconds[len(METHODS) :]
    return [name, *(f"{1e3 * f:.1f} {1e3 * t:.1f}" for f, t in zip(forward, total, strict=True))]


def make_covariance(n: int, batch: int, condition: float) -> Tensor:
    Q = make_basis(n, batch)
    return ((Q * spectrum(n, condition)) @ Q.mT).float()


def print_errors() -> None:
    for root, name in ((matrix_sqrt, "square root"), (matrix_inverse_sqrt, "inverse square root")):
        for dtype in (torch.float32, torch.float64):
            print_table(
                f"Relative errors of the {name} and of its gradient, {dtype}, 16 × 64 × 64",
                ["condition", *METHODS],
                errors(root, dtype),
            )
    print_table(
        "Relative error of the gradient between two eigenvectors, float64",
        ["ratio of eigenvalues", "eigh", "svd_pade", "svd_taylor", "ratio^101"],
        ratio_errors(),
    )


def print_times() -> None:
    by_condition = [time_row(f"{c:.0e}", make_covariance(64, 16, c)) for c in CONDITIONS]
    print_table(
        "Inverse root, and with its gradient: ms, float32, 16 × 64 × 64, one thread",
        ["condition", *METHODS],
        by_condition,
    )
    by_size = [time_row(f"{b} × {n} × {n}", make_covariance(n, b, 1e4)) for n, b in SIZES]
    print_table(
        "The same against size: ms, float32, condition 1e+04, one thread",
        ["covariances", *METHODS],
        by_size,
    )


def main() -> None:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        print_errors()
        print_times()
    finally:
        torch.set_num_threads(threads)
