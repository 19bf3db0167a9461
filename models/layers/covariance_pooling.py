"""Global covariance pooling: an image's features by the square root of their covariance."""

from typing import Literal

import torch
from torch import Tensor, nn

from disentangle.linalg import SquareRootMethod, matrix_sqrt
from disentangle.linalg.primitives import identity_like, without_autocast
from disentangle.linalg.square_root import SQUARE_ROOT_METHODS
from disentangle.models.layers.moments import moments
from disentangle.models.layers.pre_svd_convolution import pre_svd_convolution
from disentangle.models.shapes import check_positive
from disentangle.orthogonality import WeightConstraint

PoolingMethod = SquareRootMethod | Literal["isqrt_cov"]
POOLING_METHODS: tuple[str, ...] = (*SQUARE_ROOT_METHODS, "isqrt_cov")
ISQRT_COV_ITERATIONS = 5


def isqrt_cov(covariance: Tensor, iterations: int = ISQRT_COV_ITERATIONS) -> Tensor:
    """The square root as iSQRT-COV (fast-MPN-COV) finds it, by a few Newton–Schulz iterations.

    The covariance is divided by its trace, and the result multiplied by the root of that. After
    five iterations it is not yet the square root: along an eigenvalue of 0.07 times the trace it
    is 1 % too small, along one of 0.01 times the trace 34 %. Its gradient is that of the value. Of
    the zero matrix it is zero.

    Source: Li, Xie, Wang and Gao, "Towards Faster Training of Global Covariance Pooling Networks by
    Iterative Matrix Square Root Normalization", CVPR 2018, https://arxiv.org/abs/1712.01034.

    Args:
        covariance: `(…, n, n)`, symmetric positive semi-definite, float32 or float64.
        iterations: How many.

    Returns:
        `(…, n, n)`.

    Examples:
        >>> isqrt_cov(torch.tensor([[2.0, 0.0], [0.0, 2.0]]))
        tensor([[1.4142, 0.0000],
                [0.0000, 1.4142]])
    """
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    # The root of the zero matrix has an infinite derivative.
    trace = torch.where(trace > 0, trace, 1.0)
    Y, Z = covariance / trace, identity_like(covariance)
    for _ in range(iterations):
        T = 1.5 * identity_like(Y) - 0.5 * Z @ Y
        Y, Z = Y @ T, T @ Z
    return trace.sqrt() * Y


class CovarianceRoot(nn.Module):
    """The square root of the covariance of each image's features, as a vector.

    `Σ = (1/HW) Σ (x − x̄)(x − x̄)ᵀ + eps I` over the positions of one image; of its root the upper
    triangle, row by row, with the diagonal. Computed in float32 at least.

    Args:
        eps: What is added to the variance in every direction.
        method: Method of the square root: one of `matrix_sqrt`, or `isqrt_cov`.

    Raises:
        ValueError: If `eps` is negative or `method` is unknown.

    Examples:
        >>> CovarianceRoot()(torch.randn(2, 4, 6, 6)).shape
        torch.Size([2, 10])
    """

    channel_axis = 1  # as `ConditioningProbe` reads it

    def __init__(self, *, eps: float = 1e-2, method: PoolingMethod = "auto") -> None:
        super().__init__()
        if not eps >= 0:
            raise ValueError(f"eps must not be negative, got {eps}")
        if method not in POOLING_METHODS:
            choices = ", ".join(POOLING_METHODS)
            raise ValueError(f"method must be one of {choices}, got {method!r}")
        self.eps, self.method = eps, method

    def forward(self, features: Tensor) -> Tensor:
        """Features `(N, C, H, W)` to vectors `(N, C(C+1)/2)`, in the dtype of `features`.

        Raises:
            ValueError: If `features` is not `(N, C, H, W)`, or has a single position.
        """
        if features.ndim != 4 or features.shape[2:].numel() < 2:
            raise ValueError(
                "features must have the shape (N, C, H, W) with at least 2 positions, "
                f"got {tuple(features.shape)}"
            )
        x = features.to(torch.promote_types(features.dtype, torch.float32))
        root = self._root(x.flatten(2).mT)  # (N, C, H, W) -> (N, HW, C) -> (N, C, C)
        C = root.shape[-1]
        rows, columns = torch.triu_indices(C, C, device=root.device)
        # (N, C, C) -> (N, C²) -> (N, C(C+1)/2)
        return root.flatten(1).index_select(1, C * rows + columns).to(features.dtype)

    def _root(self, points: Tensor) -> Tensor:
        with without_autocast(points):
            _, covariance = moments(points)
            covariance = covariance + self.eps * identity_like(covariance)
            if self.method == "isqrt_cov":
                return isqrt_cov(covariance)
            return matrix_sqrt(covariance, self.method)

    def extra_repr(self) -> str:
        """Return the options that `print` shows."""
        return f"eps={self.eps}, method={self.method}"


class GlobalCovariancePooling(nn.Module):
    """Second-order pooling: fewer channels, then the square root of their covariance per image.

    A 1 × 1 convolution with BatchNorm and ReLU reduces the channels; its weight is the Pre-SVD
    parameter, `reduction.0.weight`. What follows is a `CovarianceRoot`.

    With fewer positions than channels the covariance is singular but for `eps`. Published are
    roots without it. `eigh`, `svd_*` and `isqrt_cov` bear that; the gradient of `newton_schulz`,
    and so of `auto` on a GPU, is then that of the rounding, many times as large as the rest.

    Source: Li, Xie, Wang and Zuo, ICCV 2017, https://arxiv.org/abs/1703.08050 (MPN-COV); the layers
    are those of Li et al., CVPR 2018, https://arxiv.org/abs/1712.01034.

    Args:
        channels: Channels of the input.
        reduced_channels: `d`, after the convolution.
        eps: What is added to the variance in every direction.
        method: Method of the square root: one of `matrix_sqrt`, or `isqrt_cov`.
        weight: What the convolution is kept to, as in `pre_svd_convolution`.

    Raises:
        ValueError: If a number of channels is not positive, `eps` is negative, or `method` or
            `weight` is unknown.

    Examples:
        >>> pooling = GlobalCovariancePooling(16, reduced_channels=4)
        >>> pooling(torch.randn(2, 16, 6, 6)).shape
        torch.Size([2, 10])
    """

    channel_axis = 1  # as `ConditioningProbe` reads it

    def __init__(
        self,
        channels: int,
        *,
        reduced_channels: int = 256,
        eps: float = 1e-2,
        method: PoolingMethod = "auto",
        weight: WeightConstraint = "free",
    ) -> None:
        super().__init__()
        check_positive(channels=channels, reduced_channels=reduced_channels)
        self.reduction = nn.Sequential(
            pre_svd_convolution(channels, reduced_channels, 1, stride=1, weight=weight),
            nn.BatchNorm2d(reduced_channels),
            nn.ReLU(inplace=True),
        )
        self.root = CovarianceRoot(eps=eps, method=method)
        self.out_features = reduced_channels * (reduced_channels + 1) // 2

    def forward(self, features: Tensor) -> Tensor:
        """Features `(N, channels, H, W)` to vectors `(N, d(d+1)/2)`."""
        return self.root(self.reduction(features))
