"""The polar factor beside `torch.linalg.svd` on every shape of layer: seconds and error.

The floor is the memory's: the matrices are read twice (Gram matrix, product) and written once.
"""

import torch
from torch import Tensor

from disentangle.linalg import polar_factor
from disentangle.orthogonality.orthogonal_weight import Orthonormal

from .timing import median_seconds_each, print_table

WIDTHS = (8192, 32768, 65536, 131072, 262144, 524288)  # of EigenGAN-256's bases


def polar_by_svd(matrix: Tensor) -> Tensor:
    """The straightforward way, as in the paper's code."""
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U @ Vh


def make_matrix(
    rows: int, columns: int, condition: float | None, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Standard normal, or with singular values from 1 down to 1 / condition."""
    noise = torch.randn(rows, columns, dtype=torch.float64)
    if condition is None:
        return noise.to(dtype)
    rotation = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64))[0]
    sigmas = torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), rows).double()
    return ((rotation * sigmas) @ torch.linalg.qr(noise.mT)[0].mT).to(dtype)


def error(approximation: Tensor, exact: Tensor) -> str:
    return f"{((approximation.double() - exact).norm() / exact.norm()).item():.1e}"


def measure(name: str, matrices: list[Tensor]) -> list[str]:
    buffers = [torch.empty_like(matrix) for matrix in matrices]

    def floor() -> None:
        for matrix, buffer in zip(matrices, buffers, strict=True):
            matrix.sum()
            buffer.copy_(matrix)

    ours, svd, least = median_seconds_each(
        [
            lambda: [polar_factor(matrix) for matrix in matrices],
            lambda: [polar_by_svd(matrix) for matrix in matrices],
            floor,
        ]
    )
    exact = polar_by_svd(matrices[-1].double())
    errors = [error(polar(matrices[-1]), exact) for polar in (polar_factor, polar_by_svd)]
    times = [f"{1e3 * seconds:.2f}" for seconds in (ours, svd, least)]
    return [name, *times, f"{svd / ours:.1f}", *errors]


def measure_orthonormal(shape: tuple[int, int]) -> list[str]:
    """The orthogonal weight in training: forward and backward, in polar factors."""
    free = torch.nn.Parameter(make_matrix(*shape, None))
    fixed, gradient, orthonormal = free.detach(), torch.randn(shape), Orthonormal()

    def step() -> None:
        free.grad = None
        orthonormal(free).backward(gradient)

    both, polar = median_seconds_each([step, lambda: polar_factor(fixed)])
    name = f"{shape[0]} × {shape[1]}"
    return [name, f"{1e3 * both:.2f}", f"{1e3 * polar:.2f}", f"{both / polar:.1f}"]


def main() -> None:
    torch.manual_seed(0)
    rows = []
    for condition, kind in ((None, "random"), (1e3, "condition 1e3")):
        bases = [make_matrix(6, width, condition) for width in WIDTHS]
        rows += [measure(f"6 × {basis.shape[1]}, {kind}", [basis]) for basis in bases]
        rows.append(measure(f"these six, {kind}", bases))
        for shape in ((512, 4608), (64, 576)):
            name = f"{shape[0]} × {shape[1]}, {kind}"
            rows.append(measure(name, [make_matrix(*shape, condition)]))
        batch = torch.stack([make_matrix(64, 576, condition) for _ in range(8)])
        rows.append(measure(f"8 of 64 × 576 in one call, {kind}", [batch]))
    print_table(
        f"Polar factor, float32, {torch.get_num_threads()} threads (errors: of the last matrix)",
        ["matrix", "ours, ms", "SVD, ms", "floor, ms", "ratio", "our error", "SVD's error"],
        rows,
    )
    shapes = [(6, 8192), (6, 65536), (6, 524288), (64, 576), (512, 4608)]
    print_table(
        "Orthogonal weight (Orthonormal)",
        ["matrix", "forward and backward, ms", "one polar factor, ms", "ratio"],
        [measure_orthonormal(shape) for shape in shapes],
    )
