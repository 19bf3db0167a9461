"""Checks of decoders: shape and range of the images, and the same images for the same latents."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from disentangle.linalg.checks import check_dense
from disentangle.metrics.image_range import check_range, describe_range

SAME = 0.02  # of 2: sums in another order differ by less, even in half precision


class CheckedDecoder:
    """Decoder that checks its images and decodes the first batch twice, in two orders.

    Args:
        decode: Gives images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`; called without a
            gradient.
        tolerance: Largest difference between the images of the first batch, decoded twice; None
            decodes it once.

    Attributes:
        lowest: Lowest value of all images so far.

    Examples:
        >>> decode = CheckedDecoder(lambda z: z[:, :, None, None].tanh())
        >>> decode(torch.zeros(2, 3)).shape, decode.lowest
        (torch.Size([2, 3, 1, 1]), 0.0)
        >>> noisy = CheckedDecoder(lambda z: torch.rand(len(z), 1, 8, 8))
        >>> noisy(torch.zeros(2, 3))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: decode must give the same images of the same latents, got a difference of ...
    """

    def __init__(
        self, decode: Callable[[Tensor], Tensor], *, tolerance: float | None = SAME
    ) -> None:
        self.decode, self.tolerance = decode, tolerance
        self.lowest = math.inf

    @property
    def caveat(self) -> str:
        """Caveat if the images so far look like `[0, 1]`; else empty."""
        return describe_range(decoded=self.lowest)

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        """Return the checked images `(N, C, H, W)` of latents `(N, D)`.

        Raises:
            ValueError: If they are not finite floating-point images of that shape in `[-1, 1]`, or
                differ when decoded again.
        """
        if self.tolerance is None:
            return self._decode(latents)
        # copies: a decoder may change what it is given, and give the same tensor again
        images = self._decode(latents.clone()).clone()
        # in another order: noise with a seed of its own belongs to places, not to latents
        again = self._decode(latents.flip(0)).flip(0)
        self._check_repetition(images, again, self.tolerance)
        self.tolerance = None
        return images

    def _decode(self, latents: Tensor) -> Tensor:
        images = self.decode(latents)
        if not isinstance(images, Tensor):
            raise ValueError(f"decode must give a tensor, got {type(images).__name__}")
        check_dense("images", images)
        expected = images.ndim == 4 and len(images) == len(latents) and images.numel() > 0
        if not expected or not images.is_floating_point():
            raise ValueError(
                f"decode must give floating-point images of shape ({len(latents)}, C, H, W), got "
                f"{images.dtype} of shape {tuple(images.shape)}"
            )
        lowest = check_range(images, rule="decode must give finite images in [-1, 1]")
        self.lowest = min(self.lowest, lowest)
        return images

    @staticmethod
    def _check_repetition(images: Tensor, again: Tensor, tolerance: float) -> None:
        difference = float((images - again).abs().max())
        if difference > tolerance:
            raise ValueError(
                "decode must give the same images of the same latents, got a difference of "
                f"{difference:.3g} (black to white is 2) when a batch is decoded again in another "
                "order: switch its noise off and put it into evaluation mode"
            )
