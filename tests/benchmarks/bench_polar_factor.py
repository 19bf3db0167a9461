"""The polar factor of EigenGAN-256's six bases, beside `torch.linalg.svd`: seconds and error."""

import torch
from torch import Tensor

from disentangle.linalg import polar_factor

from .timing import median_seconds, print_table

BASES = {f"6 × {width}": (6, width) for width in (8192, 32768, 65536, 131072, 262144, 524288)}


def polar_by_svd(matrix: Tensor) -> Tensor:
    """The straightforward way, as in the paper's code."""
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return U @ Vh


def error(approximation: Tensor, exact: Tensor) -> str:
    return f"{((approximation.double() - exact).norm() / exact.norm()).item():.1e}"


def measure(name: str, matrices: list[Tensor]) -> list[str]:
    ours = median_seconds(lambda: [polar_factor(matrix) for matrix in matrices])
    svd = median_seconds(lambda: [polar_by_svd(matrix) for matrix in matrices])
    exact = polar_by_svd(matrices[-1].double())
    errors = [error(polar(matrices[-1]), exact) for polar in (polar_factor, polar_by_svd)]
    return [name, f"{1e3 * ours:.1f}", f"{1e3 * svd:.1f}", f"{svd / ours:.1f}", *errors]


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    bases = {name: torch.randn(shape, generator=generator) for name, shape in BASES.items()}
    rows = [measure(name, [basis]) for name, basis in bases.items()]
    rows.append(measure("all six", list(bases.values())))
    print_table(
        f"Polar factor, float32, {torch.get_num_threads()} threads (error: that of the last basis)",
        ["basis", "ours, ms", "SVD, ms", "ratio", "our error", "SVD's error"],
        rows,
    )
