"""The convolution before an SVD meta-layer, with its weight constrained."""

from torch import nn

from disentangle.orthogonality import SkewOrthogonalConv2d, WeightConstraint, constrain_weight


def pre_svd_convolution(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int, weight: WeightConstraint
) -> nn.Module:
    """A convolution without bias, that keeps the size of an image up to its stride.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd.
        stride: 1 or 2.
        weight: `free` as He et al. draw it; `spectral` so too, with its matrix kept at spectral
            norm 1; `orthonormal_kernel` with its matrix `(out, in·k·k)` kept to orthonormal rows or
            columns, whichever are fewer; `orthogonal` for a skew-orthogonal convolution, an
            orthogonal map from image to image. In each the parameter that is trained is found under
            the name `weight`.

    Raises:
        ValueError: If `weight` is unknown.

    Examples:
        >>> pre_svd_convolution(3, 8, 3, stride=1, weight="free").weight.shape
        torch.Size([8, 3, 3, 3])
        >>> pre_svd_convolution(3, 8, 3, stride=1, weight="orthogonal").weight.shape
        torch.Size([8, 8, 3, 3])
    """
    if weight == "orthogonal":
        return SkewOrthogonalConv2d(
            in_channels, out_channels, kernel_size, stride=stride, bias=False
        )
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    # Without `nn.init`, which `from_pretrained` turns off: a constraint looks at the weight that it
    # is put on, and fresh memory need not be finite.
    convolution.weight.data.normal_(std=(2 / (out_channels * kernel_size**2)) ** 0.5)
    return constrain_weight(convolution, "weight", weight)
