"""The transposed convolution that makes images out of features, quick on a CPU."""

import torch
from torch import Tensor, nn

from disentangle.linalg.custom_function import operate

KERNEL, STRIDE, PADDING = 4, 2, 1


class ImageConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution of 4 × 4 that doubles the resolution, to the channels of images.

    The same map, parameters and names as `nn.ConvTranspose2d(…, 4, stride=2, padding=1)`. PyTorch's
    CPU kernel fills its vectors with output channels, of which an image has one or three; here the
    patch of each pixel is a row of one product of matrices, and the patches are added up. The
    gradient is PyTorch's. On other devices, and under autocast, all is PyTorch's.

    Args:
        in_channels: Channels of the features.
        out_channels: Channels of the images.

    Examples:
        >>> ImageConvTranspose2d(32, 1)(torch.randn(2, 32, 16, 16)).shape
        torch.Size([2, 1, 32, 32])
    """

    channel_axis = 1  # as `ConditioningProbe` reads it

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, KERNEL, stride=STRIDE, padding=PADDING)

    def forward(self, h: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Features `(N, C, H, W)` to images `(N, out_channels, 2H, 2W)`."""
        if h.device.type != "cpu" or output_size or torch.is_autocast_enabled("cpu"):
            return super().forward(h, output_size)
        return _AddedPatches.apply(h, self.weight, self.bias)


def add_patches(h: Tensor, weight: Tensor) -> Tensor:
    """The transposed convolution without its bias.

    Args:
        h: `(N, C, H, W)`.
        weight: `(C, O, 4, 4)`.

    Returns:
        `(N, O, 2H, 2W)`, in the memory order of `torch.channels_last`.
    """
    N, C, H, W = h.shape
    O = weight.shape[1]  # noqa: E741
    columns = weight.permute(0, 2, 3, 1).reshape(C, -1)  # (C, O, 4, 4) -> (C, 4·4·O)
    patches = h.permute(0, 2, 3, 1).reshape(-1, C) @ columns  # (N·H·W, 4·4·O)
    # Row k of the patch of pixel i lies in row 2i + k of the sum, that is row k % 2 of the pair
    # of rows i + k // 2; columns likewise.
    patches = patches.view(N, H, W, 2, 2, 2, 2 * O)  # (N, i, j, k // 2, k % 2, l // 2, l % 2 and O)
    total = h.new_zeros(N, H + 1, 2, W + 1, 2 * O)
    for a in (0, 1):
        for b in (0, 1):
            total[:, a : a + H, :, b : b + W] += patches[:, :, :, a, :, b].transpose(2, 3)
    images = total.view(N, 2 * H + 2, 2 * W + 2, O)
    return images[:, PADDING:-PADDING, PADDING:-PADDING].permute(0, 3, 1, 2)


class _AddedPatches(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return _add_bias(add_patches(h, weight), bias)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        h, weight, _ = inputs
        ctx.save_for_backward(h, weight)
        ctx.save_for_forward(h, weight)

    @staticmethod
    def backward(ctx, G: Tensor):  # type: ignore[no-untyped-def]
        h, weight = ctx.saved_tensors
        return torch.ops.aten.convolution_backward(
            G,
            h,
            weight,
            [weight.shape[1]],
            [STRIDE, STRIDE],
            [PADDING, PADDING],
            [1, 1],
            True,
            [0, 0],
            1,
            list(ctx.needs_input_grad),
        )

    @staticmethod
    def jvp(ctx, dh: Tensor | None, dweight: Tensor | None, dbias: Tensor | None):  # type: ignore[no-untyped-def]
        h, weight = ctx.saved_tensors
        O, size = weight.shape[1], (2 * h.shape[2], 2 * h.shape[3])  # noqa: E741
        tangent = h.new_zeros(len(h), O, *size)
        if dh is not None:
            tangent = operate(torch.add, tangent, operate(add_patches, dh, weight))
        if dweight is not None:
            tangent = operate(torch.add, tangent, operate(add_patches, h, dweight))
        return tangent if dbias is None else operate(_add_bias, tangent, dbias)


def _add_bias(images: Tensor, bias: Tensor) -> Tensor:
    return images + bias[:, None, None]
