"""Principal axes of a cloud of latents."""

import torch
from torch import Tensor

from disentangle.models import Axis


def principal_components(
    points: Tensor, *, group: str = "principal axes", count: int | None = None
) -> tuple[Axis, ...]:
    """The orthogonal axes along which points vary most, those of most variance first.

    Härkönen, Hertzmann, Lehtinen and Paris, GANSpace: Discovering Interpretable GAN Controls,
    NeurIPS 2020, https://arxiv.org/abs/2004.02546, find the axes of a GAN's latents so.

    Axes of equal variance are an arbitrary basis of their span. The sign of each is a convention:
    the largest entry is positive.

    Args:
        points: `(M, D)`, at least two.
        group: Group of the axes.
        count: How many; by default all along which the points vary, at most `M − 1`.

    Returns:
        Axes on the CPU, in single precision; `std` is that of the points, and the share of their
        variance is in the name.

    Raises:
        ValueError: If the points are not finite numbers of that shape, do not vary, or vary along
            fewer axes than `count`.

    Examples:
        >>> points = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> [(axis.name, axis.direction.tolist()) for axis in principal_components(points)]
        [('component 1 (90 %)', [1.0, 0.0]), ('component 2 (10 %)', [0.0, 1.0])]
    """
    if points.ndim != 2 or len(points) < 2 or not points.isfinite().all():
        raise ValueError(
            f"expected finite points (M, D) with M ≥ 2, got the shape {tuple(points.shape)}"
        )
    variances, directions = _factorize(points.detach().cpu())
    if not 1 <= (count := len(variances) if count is None else count) <= len(variances):
        raise ValueError(
            f"count must be between 1 and {len(variances)}, the axes along which these "
            f"{len(points)} points vary, got {count}"
        )
    shares = variances / variances.sum()
    return tuple(
        Axis(
            f"component {k + 1} ({100 * float(shares[k]):.2g} %)",
            group,
            directions[k].float(),
            float(variances[k].sqrt()),
        )
        for k in range(count)
    )


def _factorize(points: Tensor) -> tuple[Tensor, Tensor]:
    """Variances `(K,)`, descending, and directions `(K, D)` along which points `(M, D)` vary."""
    X = points.double()
    X = X - X.mean(dim=0)
    wide = X.shape[0] < X.shape[1]
    lambdas, V = torch.linalg.eigh(X @ X.T if wide else X.T @ X)  # the smaller Gram matrix
    # as much as rounding of the points, in their own precision, may leave
    noise = (
        max(X.shape) * torch.finfo(points.dtype).eps ** 2 * float(points.double().square().sum())
    )
    kept = (lambdas > noise).nonzero().flatten().flip(0)
    lambdas, V = lambdas[kept], V[:, kept]
    directions = (X.T @ V / lambdas.sqrt() if wide else V).T  # (K, D)
    largest = directions.abs().argmax(dim=1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign() + 0  # no −0
    return lambdas / (len(X) - 1), directions
