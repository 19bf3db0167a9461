"""Skew-orthogonal convolution: an orthogonal map from image to image.

Source: Singla and Feizi, "Skew Orthogonal Convolutions", ICML 2021,
https://arxiv.org/abs/2105.11417; the bounds of the norm by the same authors, "Fantastic Four",
ICLR 2021, https://arxiv.org/abs/1911.10258. Official code: https://github.com/singlasahil14/SOC.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from disentangle.linalg.primitives import without_autocast
from disentangle.orthogonality.spectral_norm import LargestSingularValue, widen

Normalisation = Literal["published", "strict"]


def skew_filter(weight: Tensor) -> Tensor:
    """The filter `A = ½(W − flip(Wᵀ))`, whose convolution is a skew-symmetric map.

    With zeros around the image, of any size, as well as with a periodic image.

    Args:
        weight: `(c, c, kh, kw)` with odd `kh` and `kw`.

    Examples:
        >>> skew_filter(torch.tensor([[[[1.0, 2.0, 5.0]]]]))
        tensor([[[[-2.,  0.,  2.]]]])
    """
    return 0.5 * (weight - weight.transpose(0, 1).flip(2, 3))


def filter_unfoldings(A: Tensor) -> tuple[Tensor, Tensor]:
    """The two matrices that bound the norm of a skew-symmetric convolution.

    `√(kh·kw) min(σ₁ … σ₄)` bounds the norm of a convolution by the largest singular values of four
    unfoldings of its filter: `(out·kh, in·kw)`, `(out·kw, in·kh)`, `(out, in·kh·kw)` and
    `(out·kh·kw, in)`. For a skew-symmetric one the second is the transpose of the first, up to sign
    and order, and the fourth of the third: here are the first and the third.

    Args:
        A: `(c, c, kh, kw)`, skew-symmetric in the sense of `skew_filter`.

    Returns:
        `(c·kh, c·kw)` and `(c, c·kh·kw)`.
    """
    # (out, in, kh, kw) -> (out, kh, in, kw) -> (out·kh, in·kw)
    return A.transpose(1, 2).flatten(2).flatten(0, 1), A.flatten(1)


def convolution_exponential(images: Tensor, A: Tensor, terms: int) -> Tensor:
    """`x + A∗x + A∗A∗x / 2! + …`, with zeros around the images.

    For skew-symmetric `A` the limit is orthogonal. After `t` terms it is off, in the norm of maps,
    by at most `‖A‖^(t+1) / (t+1)!`.

    Args:
        images: `(N, c, H, W)`.
        A: `(c, c, kh, kw)` with odd `kh` and `kw`.
        terms: How many convolutions `t` to take.

    Returns:
        `(N, c, H, W)`.

    Examples:
        >>> quarter_turn = 0.5 * torch.pi * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
        >>> turned = convolution_exponential(
        ...     torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), quarter_turn[..., None, None], terms=12
        ... )
        >>> turned.flatten().abs().round(decimals=3)
        tensor([0., 1.])
    """
    term = total = images
    for i in range(1, terms + 1):
        term = functional.conv2d(term, A, padding=(A.shape[2] // 2, A.shape[3] // 2)) / i
        total = total + term
    return total


class SkewOrthogonalConv2d(nn.Module):
    """SOC: a convolution that keeps the norm of what it is given, in place of `nn.Conv2d`.

    The map is the exponential of a skew-symmetric convolution, and therefore orthogonal: all its
    singular values are 1. If that has more channels than `in_channels · stride²`, it is given zeros
    for the others and still keeps norms; if it has more than `out_channels`, the others are dropped
    and norms can fall. The bias comes on top.

    The borders are padded with zeros, as published, and the output is as large as the input (over
    the stride). Orthogonality is exact there too, since cutting a skew-symmetric map to the image
    leaves it skew-symmetric; but near a border the map is another one than in the interior.

    The series is cut after `train_terms` or `eval_terms` convolutions, 5 and 12 as in the official
    code (that of Song, Sebe and Wang has 10 in evaluation): see `convolution_exponential` for the
    error, which depends on the norm of the normalised filter `A`. `strict` divides by `k min σ`, so
    that `‖A‖ ≤ 1`: singular values are within 1/6! = 0.0014 of 1 in training and within 1/13! =
    2e-10 in evaluation. `published` takes `0.7 A / min σ`, which bounds `‖A‖` by 0.7 k only, and
    `A / min σ` for k = 1, a true bound:

    ========================  ======  =======  ========
    published                 `‖A‖`   5 terms  12 terms
    ========================  ======  =======  ========
    k = 3, random filters     ≤ 1.6   0.02     7e-8
    k = 3, any filter         ≤ 2.1   0.12     3e-6
    k = 5, random filters     ≤ 2.0   0.09     1e-6
    k = 5, any filter         ≤ 3.5   no bound 0.002
    ========================  ======  =======  ========

    `min σ` is tracked by power iteration (see `LargestSingularValue`), two vectors that are saved
    in the state dict: fitted exactly at the start and by `reset_parameters` (an eigendecomposition
    of `c·k × c·k`), moved by one iteration per pass that trains, left alone otherwise. While the
    filter changes they lag, and `‖A‖` is above its bound by as much: measured, by a tenth on
    average and a quarter at worst. After training or assigning the weight, `fit` makes it exact.
    The official code starts with 50 iterations for a filter that it then draws anew, moves by one
    iteration per training pass as well, and makes 50 iterations every 200 passes to catch up; here
    nothing but `fit` does that.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd: an even filter has no centre that its mirror image shares.
        stride: 1, or 2: the input is rearranged to half the size and four times the channels.
        bias: Whether to add a bias per channel.
        normalisation: What the filter is divided by.
        train_terms: Convolutions in training.
        eval_terms: Convolutions in evaluation.

    Attributes:
        weight: The free filter `W`, `(c, c, k, k)`, where `c` is `in_channels · stride²` or
            `out_channels`, whichever is larger. Its scale has no effect.

    Raises:
        ValueError: If an argument is out of range; at a call, if the images have other channels or
            cannot be divided by the stride.

    Examples:
        >>> layer = SkewOrthogonalConv2d(3, 12, kernel_size=3, stride=2, bias=False).eval()
        >>> images = torch.randn(5, 3, 8, 8)
        >>> layer(images).shape
        torch.Size([5, 12, 4, 4])
        >>> torch.allclose(layer(images).norm(), images.norm())
        True
    """

    channel_axis = 1  # as `ConditioningProbe` reads it

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        bias: bool = True,
        normalisation: Normalisation = "published",
        train_terms: int = 5,
        eval_terms: int = 12,
    ) -> None:
        super().__init__()
        _check_arguments(in_channels, out_channels, kernel_size, stride, normalisation)
        if min(train_terms, eval_terms) < 1:
            raise ValueError(
                f"train_terms and eval_terms must be at least 1, got {train_terms} and {eval_terms}"
            )
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.train_terms, self.eval_terms = train_terms, eval_terms
        published = 1.0 if kernel_size == 1 else 0.7
        self.scale = published if normalisation == "published" else 1 / kernel_size
        c = max(in_channels * stride**2, out_channels)
        self.weight = nn.Parameter(torch.empty(c, c, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        # Of the first and the third unfolding.
        self.sigma1 = LargestSingularValue(rows=c * kernel_size)
        self.sigma3 = LargestSingularValue(rows=c)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters anew, as published, and fits the power iteration to them."""
        # Without `nn.init`, which `from_pretrained` turns off: the filter is decomposed at once,
        # and fresh memory need not be finite.
        self.weight.data.normal_(std=len(self.weight) ** -0.5)
        if self.bias is not None:
            bound = self.out_channels**-0.5
            self.bias.data.uniform_(-bound, bound)
        self.fit()

    @torch.no_grad()
    def fit(self) -> None:
        """Fits the power iteration to a weight that was assigned."""
        M1, M3 = filter_unfoldings(skew_filter(self.weight.double()))
        self.sigma1.fit(M1)
        self.sigma3.fit(M3)

    def normalised_filter(self) -> Tensor:
        """The skew-symmetric filter `A` `(c, c, k, k)` of which the map is the exponential."""
        with without_autocast(self.weight):
            A = skew_filter(widen(self.weight))
            M1, M3 = filter_unfoldings(A)
            sigma = torch.minimum(self.sigma1(M1), self.sigma3(M3))
            return (self.scale / torch.where(sigma > 0, sigma, 1.0) * A).to(self.weight.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(N, in_channels, H, W)` to `(N, out_channels, H / stride, W / stride)`."""
        self._check_images(images)
        # (N, C, sH, sW) -> (N, C·s², H, W)
        h = functional.pixel_unshuffle(images, self.stride)
        # (N, C·s², H, W) -> (N, c, H, W)
        h = functional.pad(h, (0, 0, 0, 0, 0, len(self.weight) - h.shape[1]))
        terms = self.train_terms if self.training else self.eval_terms
        h = convolution_exponential(h, self.normalised_filter(), terms)[:, : self.out_channels]
        return h if self.bias is None else h + self.bias[:, None, None]

    def _check_images(self, images: Tensor) -> None:
        shape, s = tuple(images.shape), self.stride
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise ValueError(f"images must have shape (N, {self.in_channels}, H, W), got {shape}")
        if shape[2] % s or shape[3] % s:
            raise ValueError(f"images must have sides that are multiples of {s}, got {shape}")

    def extra_repr(self) -> str:
        """Arguments that `print` shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.weight.shape[-1]}, "
            f"stride={self.stride}"
        )


def _check_arguments(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, normalisation: str
) -> None:
    if min(in_channels, out_channels) < 1:
        raise ValueError(
            f"in_channels and out_channels must be at least 1, got {in_channels} and {out_channels}"
        )
    if not isinstance(kernel_size, int):
        raise ValueError(f"kernel_size must be one number, of a square filter, got {kernel_size}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            "kernel_size must be odd, since the filter is subtracted from its mirror image about "
            f"its centre, got {kernel_size}"
        )
    if stride not in (1, 2):
        raise ValueError(
            "stride must be 1 or 2, since it multiplies the channels of the filter by its square, "
            f"got {stride}"
        )
    if normalisation not in get_args(Normalisation):
        choices = ", ".join(get_args(Normalisation))
        raise ValueError(f"normalisation must be one of {choices}, got {normalisation!r}")
