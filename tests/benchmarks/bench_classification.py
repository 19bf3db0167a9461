"""The SVD meta-layers of classification: decorrelated batch norm beside BatchNorm, and the root of
global covariance pooling by every method.

The straightforward decorrelated batch norm is the equations as they stand: eigenvalues and
eigenvectors of the covariance, the inverse of its root, and autograd through all of it.

The floor of the layer counts five products of the size of the maps, at the speed of one of them:
covariance and whitening, and backward the gradient of the whitening matrix and the two parts of
that of the maps.
"""

from functools import partial

import torch
from torch import Tensor, nn

from disentangle.linalg import SQUARE_ROOT_METHODS, matrix_sqrt
from disentangle.models.layers import DecorrelatedBatchNorm2d
from disentangle.models.layers.covariance_pooling import isqrt_cov

from .timing import median_seconds, median_seconds_each, print_table

SHAPE = (128, 64, 32, 32)
POOLED, CHANNELS = 64, 256
POSITIONS = 14 * 14  # of ResNet-50 at 224 pixels
EPS = (1e-2, 0)
PRODUCTS = 5
METHODS = [*(method for method in SQUARE_ROOT_METHODS if method != "auto"), "isqrt_cov"]


class StraightforwardNorm(nn.Module):
    """Whitens by `torch.linalg.eigh` and `torch.linalg.inv`."""

    def forward(self, maps: Tensor) -> Tensor:
        N, C, H, W = maps.shape
        x = maps.transpose(0, 1).reshape(C, -1)  # (N, C, H, W) -> (C, NHW)
        centred = x - x.mean(1, keepdim=True)
        covariance = centred @ centred.T / x.shape[1] + 1e-2 * torch.eye(C)
        lambdas, U = torch.linalg.eigh(covariance)
        white = torch.linalg.inv(U @ lambdas.sqrt().diag() @ U.T) @ centred
        return white.view(C, N, H, W).transpose(0, 1)  # (C, NHW) -> (N, C, H, W)


def forward_and_backward(layer: nn.Module, maps: Tensor, gradient: Tensor) -> None:
    torch.autograd.grad(layer(maps), [maps, *layer.parameters()], gradient)


def norm_row(name: str, memory_format: torch.memory_format) -> list[str]:
    maps = torch.randn(SHAPE).contiguous(memory_format=memory_format).requires_grad_()
    gradient = torch.randn_like(maps)
    layers = [nn.BatchNorm2d(SHAPE[1]), DecorrelatedBatchNorm2d(SHAPE[1]), StraightforwardNorm()]
    calls = [partial(forward_and_backward, layer, maps, gradient) for layer in layers]
    plain, ours, straightforward = median_seconds_each(calls, repeats=9)
    samples, square = (
        torch.randn(maps.numel() // SHAPE[1], SHAPE[1]),
        torch.randn(SHAPE[1], SHAPE[1]),
    )
    product = torch.empty_like(samples)
    floor = PRODUCTS * median_seconds(partial(torch.mm, samples, square, out=product))
    seconds = (plain, ours, straightforward, floor)
    ratios = (ours / plain, straightforward / ours)
    return [name, *(f"{1e3 * s:.0f}" for s in seconds), *(f"{r:.1f}" for r in ratios)]


def floor_seconds() -> float:
    N, C, H, W = SHAPE
    samples, square = torch.randn(N * H * W, C), torch.randn(C, C)
    product = torch.empty_like(samples)
    return PRODUCTS * median_seconds(partial(torch.mm, samples, square, out=product))


def pooled_root(covariance: Tensor, method: str) -> Tensor:
    return isqrt_cov(covariance) if method == "isqrt_cov" else matrix_sqrt(covariance, method)


def with_gradient(covariance: Tensor, G: Tensor, method: str) -> tuple[Tensor, Tensor]:
    leaf = covariance.detach().requires_grad_()
    root = pooled_root(leaf, method)
    return root.detach(), torch.autograd.grad(root, leaf, G)[0]


def relative_error(approximation: Tensor, truth: Tensor) -> str:
    return f"{((approximation.double() - truth).norm() / truth.norm()).item():.0e}"


def root_rows() -> list[list[str]]:
    """Of covariances of rectified features, those which the layer meets at its start."""
    x = torch.randn(POOLED, CHANNELS, POSITIONS, dtype=torch.float64).relu()
    x = x - x.mean(-1, keepdim=True)
    G = torch.randn(POOLED, CHANNELS, CHANNELS)
    G = G + G.mT
    exact = [x @ x.mT / POSITIONS + eps * torch.eye(CHANNELS) for eps in EPS]
    truths = [with_gradient(covariance, G.double(), "eigh") for covariance in exact]
    calls = [partial(with_gradient, exact[0].float(), G, method) for method in METHODS]
    rows = []
    for method, seconds in zip(METHODS, median_seconds_each(calls, 3), strict=True):
        found = [with_gradient(covariance.float(), G, method) for covariance in exact]
        errors = [
            relative_error(x, truth)
            for pair, truths_of_pair in zip(found, truths, strict=True)
            for x, truth in zip(pair, truths_of_pair, strict=True)
        ]
        rows.append([method, f"{1e3 * seconds:.0f}", *errors])
    return rows


def print_norms() -> None:
    header = ["BatchNorm", "decorrelated", "eigh and inv", "floor", "to BatchNorm", "of eigh, inv"]
    rows = [
        norm_row("channels last", torch.channels_last),
        norm_row("channels first", torch.contiguous_format),
    ]
    shape = " × ".join(map(str, SHAPE))
    title = f"Forward and backward of {shape}, ms, {torch.get_num_threads()} thread(s)"
    print_table(title, ["memory order", *header], rows)


def main() -> None:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    print_norms()
    torch.set_num_threads(1)
    try:
        print_norms()
        print_table(
            f"Root of {POOLED} covariances {CHANNELS} × {CHANNELS} of {POSITIONS} positions with "
            "its gradient: ms, float32, one thread, and relative errors of both",
            [
                "method",
                "ms",
                *(f"{what}, eps {eps}" for eps in EPS for what in ("root", "gradient")),
            ],
            root_rows(),
        )
    finally:
        torch.set_num_threads(threads)
