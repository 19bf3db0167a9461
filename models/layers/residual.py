"""A residual block without normalisation."""

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

SLOPE = 0.2  # of every leaky ReLU
SHARE = 0.1  # of the branch beside the shortcut


class ResidualBlock(nn.Module):
    """`shortcut(h) + 0.1 conv(lrelu(conv(lrelu(h))))`, at one resolution.

    Source: Mescheder, Geiger and Nowozin, ICML 2018, https://arxiv.org/abs/1801.04406, appendix D.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; if they differ, the shortcut is a 1 × 1 convolution.

    Examples:
        >>> import torch
        >>> ResidualBlock(4, 8)(torch.zeros(2, 4, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    channel_axis = 1  # as `ConditioningProbe` reads it

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = min(in_channels, out_channels)
        self.first = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, out_channels, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Features `(N, C, H, W)` to features `(N, out_channels, H, W)`."""
        branch = self.second(leaky_relu(self.first(leaky_relu(h, SLOPE)), SLOPE))
        return self.shortcut(h) + SHARE * branch
