"""Batch normalisation by the statistics of all processes."""

import torch
from torch import Tensor, nn

from disentangle.distributed.all_reduce import count_processes, sum_over_processes
from disentangle.linalg.primitives import without_autocast


class JointBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose statistics in training are those of the images of all processes.

    With one process, and in evaluation mode, it is `BatchNorm2d`; arguments and state dict are the
    same. Unlike `torch.nn.SyncBatchNorm` it also works on CPUs. The gradient is that of the sum of
    all losses, as DistributedDataParallel expects, and every process must take part in each pass.

    Examples:
        >>> layer = JointBatchNorm2d(3)
        >>> layer(torch.randn(4, 3, 5, 5)).shape
        torch.Size([4, 3, 5, 5])
    """

    channel_axis = 1  # as `ConditioningProbe` reads it

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """The normalised maps `(N, C, H, W)`."""
        if not self.training or count_processes() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        with without_autocast(x):
            mean, variance, count = joint_variance(x)
            self._take_in(mean.detach(), variance.detach() * count / (count - 1))
            scale = (variance + self.eps).rsqrt()
            shift = -mean * scale
            if self.weight is not None:
                scale, shift = self.weight * scale, self.weight * shift + self.bias
            shape = (1, -1, 1, 1)
            return (x * scale.view(shape) + shift.view(shape)).to(input.dtype)  # (C,) -> (1, C, …)

    @torch.no_grad()
    def _take_in(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running averages."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        if self.momentum is None:  # the average over all batches
            momentum = self.num_batches_tracked.to(mean).reciprocal()
        else:
            momentum = torch.full_like(mean[0], self.momentum)
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            running.lerp_(new.to(running), momentum.to(running))


def joint_variance(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance `(C,)` of each channel over all processes, and the count of numbers.

    Args:
        x: Features of this process, `(N, C, H, W)`; `N` may differ between processes.
    """
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    own = torch.full((1,), x.numel() // x.shape[1], dtype=x.dtype, device=x.device)
    *sums, count = sum_over_processes(torch.cat([own * mean, own])).split([len(mean), 1])
    joint = sums[0] / count
    # Of deviations, not of squares: these lose the digits that the mean has more.
    spread = variance + (mean - joint).square()
    return joint, sum_over_processes(own * spread) / count, count


def join_batch_norms(network: nn.Module) -> None:
    """Makes every `BatchNorm2d` of a network one over all processes; the parameters stay.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        >>> join_batch_norms(network)
        >>> type(network[1]).__name__
        'JointBatchNorm2d'
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = JointBatchNorm2d
