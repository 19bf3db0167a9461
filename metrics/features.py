"""Features of images: what metrics of generators compare, and the network that they are of.

A network says by its `name` what it is and by its `caveat` what its values cannot be compared with;
`feature_networks` makes some.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from disentangle.linalg.checks import check_floating
from disentangle.metrics.image_range import check_range, describe_range, join_caveats
from disentangle.metrics.inputs import as_floating, as_numbers, check_at_least, check_real

MINIMUM_SIZE = 16  # of an image, in pixels
NOT_COMPARABLE = "not comparable with published values"


class NamedNetwork(nn.Module):
    """A fixed network that says what it is.

    Args:
        network: In evaluation mode from here on, without gradients of its parameters.
        name: What a result records.
        caveat: Why the values cannot be compared with published ones; empty if they can.
    """

    def __init__(self, network: nn.Module, *, name: str, caveat: str) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.name = name
        self.caveat = caveat

    @property
    def comparable(self) -> bool:
        """True if values are comparable with published ones of the same network."""
        return not self.caveat

    def prepare(self, images: Tensor, minimum_size: int) -> Tensor:
        """Check images and return them with three channels, in the dtype of the network.

        Raises:
            ValueError: As `as_rgb` and `check_range`.
        """
        rgb = as_rgb(images, minimum_size)
        if len(images):
            check_range(images)
        return rgb.to(next(self.network.parameters()).dtype)


class FeatureNetwork(NamedNetwork):
    """Features `(N, D)` of images `(N, C, H, W)` in `[-1, 1]`, without a gradient.

    The network gets three channels: those of grey images are copies of the one.
    """

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """The features `(N, D)` of images `(N, C, H, W)`."""
        return self.network(self.prepare(images, MINIMUM_SIZE)).flatten(1)  # (N, D, 1, 1) -> (N, D)


class PerceptualDistance(NamedNetwork):
    """Distances `(N,)` of images `(N, C, H, W)` in `[-1, 1]`, without a gradient.

    The network gets three channels: those of grey images are copies of the one.

    Args:
        network: As in `NamedNetwork`; gives one number for each of the pairs of images.
        name: As in `NamedNetwork`.
        caveat: As in `NamedNetwork`.
        minimum_size: Height and width that the network needs.
    """

    def __init__(
        self, network: nn.Module, *, name: str, caveat: str, minimum_size: int = MINIMUM_SIZE
    ) -> None:
        super().__init__(network, name=name, caveat=caveat)
        self.minimum_size = minimum_size

    @torch.no_grad()
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance of each image from the other with the same index."""
        pair = (self.prepare(x, self.minimum_size) for x in (images, others))
        return self.network(*pair).flatten()  # (N, 1, 1, 1) -> (N,)


@dataclass(frozen=True)
class FeatureOrigin:
    """Origin of features: only those of one network and one image size are comparable.

    Attributes:
        network: The name of the network.
        caveat: Why a score cannot be compared with published ones; empty if it can.
        image_shape: Channels, height and width of the images, if known.
        lowest: Lowest value of the images, if known.
    """

    network: str = "unnamed"
    caveat: str = f"unnamed features, {NOT_COMPARABLE}"
    image_shape: tuple[int, ...] | None = None
    lowest: float | None = field(default=None, compare=False)

    def join(self, other: "FeatureOrigin") -> "FeatureOrigin":
        """Return the origin of the features of both together.

        Raises:
            ValueError: As `check_same`.
        """
        self.check_same(other)
        known = [x for x in (self.lowest, other.lowest) if x is not None]
        return replace(self, lowest=min(known, default=None))

    def check_same(self, other: "FeatureOrigin") -> None:
        """Raises a `ValueError` if features of this origin and the other do not compare."""
        if (self.network, self.caveat) != (other.network, other.caveat):
            raise ValueError(
                f"both sets of features must come from the same network, got {self.network!r} "
                f"and {other.network!r}"
            )
        shapes = self.image_shape, other.image_shape
        if None not in shapes and shapes[0] != shapes[1]:
            raise ValueError(
                f"both sets of images must have the same channels, height and width, got "
                f"{shapes[0]} and {shapes[1]}"
            )


def caveat_of(generated: FeatureOrigin, reference: FeatureOrigin) -> str:
    """Return why a score of two sets cannot be compared with others; empty if it can.

    Examples:
        >>> bright, dark = FeatureOrigin("a", "", lowest=0.0), FeatureOrigin("a", "", lowest=-1.0)
        >>> caveat_of(bright, dark)
        'the generated images never go below 0: they look like images in [0, 1], not [-1, 1]'
    """
    ranges = describe_range(generated=generated.lowest, reference=reference.lowest)
    return join_caveats(generated.caveat, ranges)


@dataclass(frozen=True, eq=False)
class Features:
    """Features and their origin.

    Attributes:
        values: Shape `(N, D)`, real.
        origin: What they were made with and of.
    """

    values: np.ndarray | Tensor
    origin: FeatureOrigin = FeatureOrigin()


def describe(network: object) -> FeatureOrigin:
    """Describe a network by its `name`, `comparable` and `caveat`, if it has them.

    Examples:
        >>> from disentangle.metrics import random_features
        >>> describe(random_features()).caveat
        'random features, not comparable with published values'
        >>> describe(lambda images: images.flatten(1)).network
        'unnamed'
    """
    name = getattr(network, "name", FeatureOrigin.network)
    if getattr(network, "comparable", False):
        return FeatureOrigin(name, caveat="")
    return FeatureOrigin(name, getattr(network, "caveat", f"{name} features, {NOT_COMPARABLE}"))


def extract_features(
    network: Callable[[Tensor], Tensor], batches: Iterable[Tensor], *, keep: int | None = None
) -> Features:
    """The features of all images of several batches, in memory.

    50,000 images take 0.4 GB with FID's Inception; `FeatureMoments` needs less for FID.

    Args:
        network: Gives features `(N, D)` of images `(N, C, H, W)`.
        batches: Images of one shape, in `[-1, 1]`.
        keep: How many images to take; by default all of them.

    Raises:
        ValueError: If there are no images, or fewer than `keep`, if their shapes differ, if they
            are not finite floating-point numbers in `[-1, 1]`, or if the network does not give
            finite features `(N, D)`.

    Examples:
        >>> from disentangle.metrics import random_features
        >>> images = torch.rand(10, 1, 16, 16)
        >>> extract_features(random_features(), images.split(4)).values.shape
        (10, 64)
    """
    parts = list(iterate_features(network, batches, keep=keep))
    origin = reduce(FeatureOrigin.join, (part.origin for part in parts))
    return Features(np.concatenate([np.asarray(part.values) for part in parts]), origin)


def iterate_features(
    network: Callable[[Tensor], Tensor], batches: Iterable[Tensor], *, keep: int | None = None
) -> Iterator[Features]:
    """As `extract_features`, one batch after the other."""
    if keep is not None:
        check_at_least(1, keep=keep)
    origin, done = None, 0
    for batch in batches:
        check_floating("images", batch)
        images = batch if keep is None else batch[: keep - done]
        if not images.numel():
            raise ValueError(f"batches must hold images, got shape {tuple(images.shape)}")
        lowest = check_range(images)
        shape = tuple(images.shape[1:])
        found = replace(describe(network), image_shape=shape, lowest=lowest)
        if origin is not None:
            origin.check_same(found)
        origin, done = found, done + len(images)
        with torch.no_grad():
            yield Features(as_features(network(images), points=len(images)), origin)
        if done == keep:
            return
    if done < (keep or 1):
        raise ValueError(f"there must be at least {keep or 1} images, got {done}")


def as_features(features: np.ndarray | Tensor, *, points: int | None = None) -> np.ndarray:
    """Checked features `(N, D)` as a floating-point array, single or double precision.

    Raises:
        ValueError: As `as_numbers` and `as_floating`, and if the shape is another one.
    """
    array = as_numbers("features", features)
    rows = "N" if points is None else points
    if array.ndim != 2 or array.size == 0 or points not in (None, len(array)):
        raise ValueError(f"features must have the shape ({rows}, D), got {array.shape}")
    return as_floating("features", array)


def as_rgb(images: Tensor, minimum_size: int = MINIMUM_SIZE) -> Tensor:
    """Images `(N, 3, H, W)` of images with one or three channels.

    Raises:
        ValueError: As `check_real`, if the shape is another one, the type is not floating-point, or
            an image is smaller than `minimum_size` pixels.

    Examples:
        >>> as_rgb(torch.zeros(2, 1, 16, 20)).shape
        torch.Size([2, 3, 16, 20])
    """
    check_real("images", images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise ValueError(
            f"images must be floating-point of shape (N, C, H, W) with 1 or 3 channels, got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
    if min(images.shape[2:]) < minimum_size:
        raise ValueError(
            f"images must have {minimum_size} pixels or more in height and width for this "
            f"network, got {tuple(images.shape[2:])}: resize them"
        )
    return images.expand(-1, 3, -1, -1)
