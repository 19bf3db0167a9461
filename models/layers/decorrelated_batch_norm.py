"""Decorrelated batch normalisation: BatchNorm that whitens channels in place of scaling them."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from disentangle.linalg import SquareRootMethod
from disentangle.linalg.primitives import without_autocast
from disentangle.models.layers.moment_map import affine_map, map_by_moments
from disentangle.models.layers.whitening import BatchWhitening, WhiteningAxes

InitialScale = Literal["ones", "uniform"]


class DecorrelatedBatchNorm2d(BatchWhitening):
    """Whitens the channels of feature maps, then scales and shifts each as BatchNorm does.

    `y = γ ⊙ Σ^-½ (x − μ) + β`, with mean and `Σ = (1/NHW) Σ (x − μ)(x − μ)ᵀ + eps I` of the batch
    in training mode, through which gradients flow, and with running averages of the mean and of
    `Σ^-½` in evaluation mode. With fewer samples than channels, or channels that depend on each
    other, `Σ` is singular but for `eps`: samples are white in the directions that they have, and
    zero in the others.

    Statistics and whitening are computed in float32 at least. On several processes they are those
    of all samples together: a covariance needs many. The gradient is then that of the sum of all
    losses, as DistributedDataParallel expects, and every process must take part in each pass.

    Whitening, scale and shift are one 1 × 1 convolution, in either order of memory, which the
    result is in too. In training it cannot be differentiated twice.

    Source: Huang et al., "Decorrelated Batch Normalization", CVPR 2018,
    https://arxiv.org/abs/1804.08450; with this eps, in place of the first norm of a network, Song,
    Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119.

    Args:
        channels: `C` of the feature maps.
        eps: What is added to the variance in every direction.
        momentum: Weight of the new batch in the running averages, as in torch.
        affine: Whether there are a scale `γ` and a shift `β` for each channel.
        initial_scale: Initial `γ`: `ones`, or `uniform` for draws from `U(0, 1)` as in the
            official code.
        track_running_stats: Whether to keep running averages; without, evaluation uses the
            statistics of its batch, too.
        groups: Parts of consecutive channels, each whitened by itself.
        axes: `zca` or `pca`, see `BatchWhitening`.
        method: Method of the inverse square root, see `matrix_inverse_sqrt`.
        synchronise: Whether statistics are those of the samples of all processes.

    Raises:
        ValueError: If `channels` or `eps` is not positive, `momentum` is not in `[0, 1]`, `groups`
            does not divide `channels`, or `initial_scale`, `method` or `axes` is unknown.

    Examples:
        >>> layer = DecorrelatedBatchNorm2d(4, eps=1e-5)
        >>> white = layer(torch.randn(8, 4, 6, 6)).movedim(1, 0).flatten(1)
        >>> torch.allclose(white @ white.T / (8 * 36), torch.eye(4), atol=1e-3)
        True
    """

    samples_are = "positions"
    channel_axis = 1  # as `ConditioningProbe` reads it

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-2,
        momentum: float = 0.1,
        affine: bool = True,
        initial_scale: InitialScale = "ones",
        track_running_stats: bool = True,
        groups: int = 1,
        axes: WhiteningAxes = "zca",
        method: SquareRootMethod = "auto",
        synchronise: bool = True,
    ) -> None:
        super().__init__(
            channels,
            eps=eps,
            momentum=momentum,
            method=method,
            groups=groups,
            axes=axes,
            track_running_stats=track_running_stats,
            synchronise=synchronise,
        )
        if initial_scale not in get_args(InitialScale):
            choices = ", ".join(get_args(InitialScale))
            raise ValueError(f"initial_scale must be one of {choices}, got {initial_scale!r}")
        draw = torch.ones if initial_scale == "ones" else torch.rand
        self.weight = nn.Parameter(draw(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, features: Tensor) -> Tensor:
        """The whitened maps `(N, C, H, W)`, in the dtype of `features`.

        Raises:
            ValueError: If `features` is not `(N, C, H, W)`, or has a single position in training
                mode.
        """
        shape = tuple(features.shape)
        if len(shape) != 4 or shape[1] != self.channels:
            raise ValueError(
                f"features must have the shape (N, {self.channels}, H, W), got {shape}"
            )
        # Half precision has too few digits for a covariance.
        x = features.to(torch.promote_types(features.dtype, torch.float32))
        samples = x.flatten(2).mT  # (N, C, H, W) -> (N, HW, C)
        with without_autocast(x):
            if self.uses_batch:
                white = self._normalise_by_batch(samples)
            else:
                white = affine_map(samples, *self._scale(*self.running_statistics(samples)))
        # (N, HW, C) -> (N, C, H, W)
        return white.mT.unflatten(2, shape[2:]).to(features.dtype)

    def _normalise_by_batch(self, samples: Tensor) -> Tensor:
        def solve(mean: Tensor, covariance: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
            count = samples.shape[:2].numel()
            return self._scale(*self.batch_statistics(mean, covariance, count))

        return map_by_moments(samples, solve, *self.parameters())

    def _scale(self, mean: Tensor, W: Tensor) -> tuple[Tensor, Tensor]:
        """`γ ⊙ W` and `β − γ ⊙ W mean`: the layer as a 1 × 1 convolution."""
        if self.weight is None or self.bias is None:
            return W, -(W @ mean)
        W = self.weight.to(W)[:, None] * W
        return W, self.bias.to(W) - W @ mean
