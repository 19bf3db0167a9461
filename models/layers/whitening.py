"""Whitening by the statistics of a batch: the SVD meta-layer that makes channels decorrelated."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from disentangle.linalg import SQUARE_ROOT_METHODS, SquareRootMethod, matrix_inverse_sqrt
from disentangle.linalg.primitives import without_autocast
from disentangle.models.layers.moments import joint_moments, moments
from disentangle.models.layers.principal_axes import principal_axes
from disentangle.models.shapes import check_positive

WhiteningAxes = Literal["zca", "pca"]


class BatchWhitening(nn.Module):
    """Base of whitening layers: mean and `Σ^-½` of a batch, and their running averages.

    Source: Huang et al., "Decorrelated Batch Normalization", CVPR 2018,
    https://arxiv.org/abs/1804.08450, eqs. 1 to 4.

    Args:
        channels: `C`, how many numbers a sample has.
        eps: What is added to the variance in every direction.
        momentum: Weight of the new batch in the running averages.
        method: Method of the inverse square root, see `matrix_inverse_sqrt`.
        groups: Parts of consecutive channels, each whitened by itself.
        axes: `zca` for `Σ^-½`, which turns samples as little as whitening can; `pca` for
            `Λ^-½ Vᵀ`, which takes them to the principal axes, largest variance first. Those of the
            running average are used in evaluation. Two axes of nearly equal variance can change
            places, and signs flip, from batch to batch: what comes after sees other coordinates.
        track_running_stats: Whether to keep running averages; without, evaluation uses the
            statistics of its batch, too.
        synchronise: Whether statistics are those of the samples of all processes.

    Raises:
        ValueError: If `channels` or `eps` is not positive, `momentum` is not in `[0, 1]`, `groups`
            does not divide `channels`, or `method` or `axes` is unknown.
    """

    samples_are = "codes"  # in messages
    running_mean: Tensor
    running_whitening: Tensor

    def __init__(
        self,
        channels: int,
        *,
        eps: float,
        momentum: float = 0.1,
        method: SquareRootMethod = "auto",
        groups: int = 1,
        axes: WhiteningAxes = "zca",
        track_running_stats: bool = True,
        synchronise: bool = False,
    ) -> None:
        super().__init__()
        _check_arguments(channels, eps, momentum, method, groups, axes)
        self.channels, self.groups, self.eps, self.momentum = channels, groups, eps, momentum
        self.method, self.axes, self.synchronise = method, axes, synchronise
        self.track_running_stats = track_running_stats
        self.register_buffer("running_mean", torch.zeros(channels) if track_running_stats else None)
        self.register_buffer(
            "running_whitening", torch.eye(channels) if track_running_stats else None
        )

    @property
    def uses_batch(self) -> bool:
        """True if the layer now uses statistics of the batch, and not the running averages."""
        return self.training or not self.track_running_stats

    def running_statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The running mean `(C,)` and whitening `W (C, C)`, in dtype and device of a tensor."""
        return self.running_mean.to(like), self._turn(self.running_whitening.to(like))

    def batch_statistics(
        self, mean: Tensor, covariance: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """Mean `(C,)` and whitening `W (C, C)` of a batch; `W (x − mean)` is white.

        In training mode the running averages take them in.

        Args:
            mean: Mean of the samples of this process, `(C,)`.
            covariance: Their covariance, `(C, C)`.
            count: How many they are.

        Raises:
            ValueError: If they are fewer than 2.
        """
        if count < 2:
            raise ValueError(
                f"a batch to whiten must have at least 2 {self.samples_are}, got {count}"
            )
        if self.synchronise:
            mean, covariance = joint_moments(mean, covariance, count)
        blocks = diagonal_blocks(covariance, self.groups)
        variance = torch.full_like(blocks[0, 0], self.eps)
        root = torch.block_diag(*matrix_inverse_sqrt(blocks + variance.diag(), self.method))
        if self.training and self.track_running_stats:
            # lerp_ takes no other dtype than the buffer's.
            for running, new in ((self.running_mean, mean), (self.running_whitening, root)):
                running.lerp_(new.detach().to(running), self.momentum)
        return mean, self._turn(root)

    def _turn(self, root: Tensor) -> Tensor:
        if self.axes == "zca":
            return root
        blocks = diagonal_blocks(root, self.groups)
        # The smallest eigenvalue of Σ^-½ is that of the largest variance.
        return torch.block_diag(*(principal_axes(blocks).mT @ blocks))

    def extra_repr(self) -> str:
        """Return the options that `print` shows."""
        return (
            f"{self.channels}, eps={self.eps}, momentum={self.momentum}, method={self.method}, "
            f"groups={self.groups}, axes={self.axes}"
        )


class Whitening(BatchWhitening):
    """Centres codes and turns them by `Σ^-½`, so that a batch has the identity as covariance.

    In training mode mean and covariance are those of the batch, as in BatchNorm, and gradients flow
    through both. In evaluation mode the running mean and the running `Σ^-½` are used, both averages
    over batches with the new one's weight `momentum`: a code then depends on itself alone. The
    average of `Σ^-½` is not that of the average covariance: it is larger, by a relative
    `O(dim / batch size)`.

    `Σ` has `eps` added to its diagonal, so that a batch of no more codes than dimensions, whose
    covariance is singular, is whitened in the directions that it has and small in the others.
    Several processes are whitened together, several parts of a batch each by itself.

    Args:
        dim: Dimension `C` of the codes.
        eps: What is added to the variance in every direction.
        momentum: Weight of the new batch in the running averages.
        method: Method of the inverse square root, see `matrix_inverse_sqrt`.
        synchronise: Whether statistics are those of the codes of all processes. Every process must
            then take part in each pass, and the gradient is that of the sum of all losses.

    Raises:
        ValueError: If `dim` or `eps` is not positive, `momentum` is not in `[0, 1]`, or `method` is
            unknown.

    Examples:
        >>> layer = Whitening(dim=3)
        >>> white = layer(torch.randn(100, 3) @ torch.randn(3, 3))
        >>> torch.allclose(white.T @ white / 100, torch.eye(3), atol=0.01)
        True
    """

    def __init__(
        self,
        *,
        dim: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        method: SquareRootMethod = "auto",
        synchronise: bool = True,
    ) -> None:
        check_positive(dim=dim)
        super().__init__(dim, eps=eps, momentum=momentum, method=method, synchronise=synchronise)

    def forward(self, codes: Tensor) -> Tensor:
        """The whitened codes `(N, C)`, in the dtype of `codes`.

        Raises:
            ValueError: If `codes` is not `(N, C)`, or is a single one in training mode.
        """
        dim = self.channels
        if codes.ndim != 2 or codes.shape[1] != dim:
            raise ValueError(f"codes must have the shape (N, {dim}), got {tuple(codes.shape)}")
        # Half precision has too few digits for a covariance.
        x = codes.to(torch.promote_types(codes.dtype, torch.float32))
        with without_autocast(x):
            if self.uses_batch:
                mean, W = self.batch_statistics(*moments(x), len(x))
            else:
                mean, W = self.running_statistics(x)
            return ((x - mean) @ W.mT).to(codes.dtype)


def diagonal_blocks(matrix: Tensor, groups: int) -> Tensor:
    """The blocks `(G, C/G, C/G)` on the diagonal of a matrix `(C, C)`.

    Examples:
        >>> diagonal_blocks(torch.arange(16.0).view(4, 4), groups=2)
        tensor([[[ 0.,  1.],
                 [ 4.,  5.]],
                [[10., 11.],
                 [14., 15.]]])
    """
    # (C, C) -> (G, C/G, G, C/G) -> (C/G, C/G, G) -> (G, C/G, C/G)
    split = matrix.unflatten(1, (groups, -1)).unflatten(0, (groups, -1))
    return split.diagonal(dim1=0, dim2=2).movedim(-1, 0)


def _check_arguments(
    channels: int, eps: float, momentum: float, method: str, groups: int, axes: str
) -> None:
    check_positive(channels=channels, groups=groups)
    if eps <= 0:
        raise ValueError(f"eps must be positive, got {eps}")
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie in [0, 1], got {momentum}")
    if channels % groups:
        raise ValueError(f"groups must divide the {channels} channels, got {groups}")
    for name, value, choices in (
        ("method", method, SQUARE_ROOT_METHODS),
        ("axes", axes, get_args(WhiteningAxes)),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
