"""Whitening of codes: the SVD meta-layer that makes a latent space decorrelated."""

import torch
from torch import Tensor, nn

from disentangle.linalg import SquareRootMethod, matrix_inverse_sqrt
from disentangle.linalg.primitives import without_autocast


class Whitening(nn.Module):
    """Centres codes and turns them by `Σ^-½`, so that a batch has the identity as covariance.

    In training mode mean and covariance are those of the batch, as in BatchNorm, and gradients flow
    through both. In evaluation mode the running mean and the running `Σ^-½` are used, both averages
    over batches with the new one's weight `momentum`: a code then depends on itself alone. The
    average of `Σ^-½` is not that of the average covariance: it is larger, by a relative
    `O(dim / batch size)`.

    `Σ` has `eps` added to its diagonal, so that a batch of no more codes than dimensions, whose
    covariance is singular, is whitened in the directions that it has and small in the others.
    Several processes, and several parts of a batch, are whitened each by itself.

    Source: Huang et al., "Decorrelated Batch Normalization", CVPR 2018,
    https://arxiv.org/abs/1804.08450, eqs. 1 to 4 (ZCA), for vectors.

    Args:
        dim: Dimension `C` of the codes.
        eps: What is added to the variance in every direction.
        momentum: Weight of the new batch in the running averages.
        method: Of the inverse square root, see `matrix_inverse_sqrt`.

    Raises:
        ValueError: If `dim` or `eps` is not positive, or `momentum` is not in `[0, 1]`.

    Examples:
        >>> layer = Whitening(dim=3)
        >>> white = layer(torch.randn(100, 3) @ torch.randn(3, 3))
        >>> torch.allclose(white.T @ white / 100, torch.eye(3), atol=0.01)
        True
    """

    running_mean: Tensor
    running_whitening: Tensor

    def __init__(
        self,
        *,
        dim: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        method: SquareRootMethod = "auto",
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        if eps <= 0:
            raise ValueError(f"eps must be positive, got {eps}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must lie in [0, 1], got {momentum}")
        self.eps, self.momentum, self.method = eps, momentum, method
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_whitening", torch.eye(dim))

    def forward(self, codes: Tensor) -> Tensor:
        """The whitened codes `(N, C)`, in the dtype of `codes`.

        Raises:
            ValueError: If `codes` is not `(N, C)`, or is a single one in training mode.
        """
        dim = len(self.running_mean)
        if codes.ndim != 2 or codes.shape[1] != dim:
            raise ValueError(f"codes must have the shape (N, {dim}), got {tuple(codes.shape)}")
        if self.training and len(codes) < 2:
            raise ValueError(f"a batch to whiten must have at least 2 codes, got {len(codes)}")
        # Half precision has too few digits for a covariance.
        x = codes.to(torch.promote_types(codes.dtype, torch.float32))
        with without_autocast(x):
            if self.training:
                mean, whitening = self._measure(x)
                self._remember(mean.detach(), whitening.detach())
            else:
                mean, whitening = self.running_mean.to(x), self.running_whitening.to(x)
            return ((x - mean) @ whitening).to(codes.dtype)

    def _measure(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `(C,)` and inverse square root of the covariance `(C, C)` of a batch."""
        mean = x.mean(0)
        centred = x - mean
        covariance = centred.mT @ centred / len(x)
        variance = torch.full_like(mean, self.eps)
        return mean, matrix_inverse_sqrt(covariance + variance.diag(), self.method)

    def _remember(self, mean: Tensor, whitening: Tensor) -> None:
        # lerp_ takes no other dtype than the buffer's.
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_whitening.lerp_(whitening.to(self.running_whitening), self.momentum)
