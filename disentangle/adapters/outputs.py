"""Outputs and errors of foreign decoders: read outputs as images in `[-1, 1]`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from disentangle.linalg.checks import check_dense
from disentangle.metrics.image_range import SLACK

BLACK = 0.01  # share of the range: images that never leave it are black
FAR = 0.5  # share of the range that most values are beyond only if it is another
SAMENESS = 0.1  # of 2: kernels for other batch sizes differ by less, even in half precision


@dataclass(frozen=True)
class OutputFormat:
    """Location and range of the images in what a decoder returns.

    Attributes:
        output: Part of it that holds the images: an index, a key or the name of an attribute; None
            for all of it.
        image_range: The values of black and white.
        clamp: Whether values beyond them are cut off.
    """

    output: int | str | None = None
    image_range: tuple[float, float] = (-1.0, 1.0)
    clamp: bool = False

    def __post_init__(self) -> None:
        check_range("image_range", self.image_range)

    def read(self, returned: Any, count: int) -> Tensor:
        """Return the images `(N, C, H, W)`, with black at −1 and white at 1.

        Args:
            returned: What the decoder gave for `count` latents.
            count: `N`.

        Raises:
            ValueError: If there is no such part, or it has not the shape of images.

        Examples:
            >>> import torch
            >>> OutputFormat(0, (0.0, 1.0)).read((torch.ones(1, 1, 1, 2), None), 1).tolist()
            [[[[1.0, 1.0]]]]
        """
        images = self._pick(returned, count)
        low, high = self.image_range
        if self.clamp:
            images = images.clamp(low, high)
        return images if (low, high) == (-1, 1) else (images - low) * (2 / (high - low)) - 1

    def check_values(self, returned: Any, count: int) -> None:
        """Raise unless the images in what a decoder returned are finite and fill their range.

        Args:
            returned: What the decoder gave for `count` latents.
            count: `N`.

        Raises:
            ValueError: If a value is not finite; if one is beyond the range, or with `clamp` most
                of them far beyond it; or if all of them are black, so that the range must be
                another.
        """
        values = self._pick(returned, count).double()
        if not values.isfinite().all():
            raise ValueError("decode must give finite images, got NaN or infinity")
        low, high = self.image_range
        shares = (values - low) / (high - low)  # 0 is black and 1 is white
        got = f"got {float(values.min()):.4g} to {float(values.max()):.4g}"
        if not self.clamp and (shares.min() < -SLACK or shares.max() > 1 + SLACK):
            raise ValueError(
                f"decode must give values within image_range {self.image_range}, {got}: choose "
                "another image_range, or clamp=True to cut off what is beyond"
            )
        far = [(side > FAR).double().mean() for side in (-shares, shares - 1)]
        if max(far) > 0.5 or shares.max() < BLACK:
            raise ValueError(
                f"decode must give values that fill image_range {self.image_range}, {got}: choose "
                "another image_range"
            )

    def _pick(self, returned: Any, count: int) -> Tensor:
        images = self._find(returned)
        if not isinstance(images, Tensor):
            raise ValueError(
                f"decode must give a tensor of images, got {_describe(images)}: say by output "
                "which part of it is the images"
            )
        check_shape(images, count)
        return images

    def _find(self, returned: Any) -> Any:
        if self.output is None:
            return returned
        try:
            if isinstance(self.output, int) or isinstance(returned, Mapping):
                return returned[self.output]
            return getattr(returned, self.output)
        except (AttributeError, LookupError, TypeError) as error:
            raise ValueError(
                f"decode gave {_describe(returned)}, which has no output {self.output!r}"
            ) from error


@contextmanager
def called(what: str) -> Iterator[None]:
    """Turn whatever a foreign function raises into a `ValueError`, since that may be anything.

    Args:
        what: The function and what it must do, for the message.

    Examples:
        >>> with called("decode must take latents"):
        ...     {}["z"]
        Traceback (most recent call last):
        ValueError: decode must take latents, but raised KeyError: 'z'
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{what}, but raised {type(error).__name__}: {reason}") from error


def check_range(name: str, limits: Sequence[float]) -> None:
    """Raise `ValueError` unless these are two finite numbers, the lower one first."""
    if len(limits) != 2 or not -math.inf < limits[0] < limits[1] < math.inf:
        raise ValueError(f"{name} must go from low to high, both finite, got {limits}")


def check_shape(images: Tensor, count: int) -> None:
    """Raise `ValueError` unless these are `count` dense floating-point images, grey or colour."""
    check_dense("images", images)
    shape = tuple(images.shape)
    if images.ndim == 4 and len(images) == count and shape[1] in (1, 3) and all(shape[1:]):
        if not images.is_floating_point():
            raise ValueError(f"decode must give floating-point images, got {images.dtype}")
        return
    last = images.ndim == 4 and shape[3] in (1, 3)
    hint = ": put the channels first, as in images.movedim(3, 1)" if last else ""
    raise ValueError(
        f"decode must give images of shape ({count}, C, H, W) with one or three channels, got "
        f"{shape}{hint}"
    )


def check_same(images: Tensor, others: Tensor) -> None:
    """Raise `ValueError` unless images of the same latents, made in two batches, are the same."""
    difference = float((images - others).abs().max())
    if difference > SAMENESS:
        raise ValueError(
            "decode must make the same image of the same latent, whatever else is in the batch, "
            f"got a difference of {difference:.3g} (black to white is 2): fix its noise and the "
            "statistics of its normalisations"
        )


def _describe(returned: Any) -> str:
    if isinstance(returned, Tensor):
        return f"a tensor of shape {tuple(returned.shape)}"
    kind = type(returned).__name__
    if isinstance(returned, Mapping):
        return f"a {kind} with {', '.join(map(repr, returned))}"
    if isinstance(returned, list | tuple):
        return f"a {kind} of {len(returned)}"
    return f"a {kind}"
