"""Small networks that are fitted to a generator, so that it can be scored.

A GAN has no encoder. The supervised metrics ask for codes; this one learns to read them off the
generator's own images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss

from disentangle.metrics.decoding import CheckedDecoder
from disentangle.metrics.image_range import check_range
from disentangle.metrics.inputs import check_at_least, check_real
from disentangle.metrics.results import Result

LARGEST_SIZE = 64  # pixels; larger images are averaged down first
SMALLEST_SIZE = 4  # pixels, at which the convolutions end
CHUNK = 256  # images that are encoded at once


@dataclass(frozen=True, eq=False)
class FittedEncoder(Result):
    """Encoder that `fit_encoder` fitted, with its accuracy for each latent.

    Attributes:
        score: Mean of `r_squared` over the latents that vary.
        r_squared: R² of each of the `A` latents on held-out pairs, shape `(A,)`: 1 − squared error
            / variance. 1 is a latent that can be read off the image, 0 one that cannot, below 0 one
            that is read worse than by guessing its mean. NaN for a latent that does not vary.
        network: From images `(N, C, H, W)` to latents `(N, A)` in units of `std` from `mean`.
        image_shape: `(C, H, W)` of the images that it was fitted to.
        mean: Mean of the latents, shape `(A,)`.
        std: Standard deviation of the latents, shape `(A,)`; 1 for one that does not vary.
        caveat: Says so if the images that it was fitted to look like `[0, 1]`; else empty.
    """

    undefined = frozenset({"score", "r_squared"})

    score: float
    r_squared: np.ndarray
    network: nn.Module
    image_shape: tuple[int, ...]
    mean: Tensor
    std: Tensor
    caveat: str = ""

    def encode(self, images: Tensor) -> Tensor:
        """Return the latents `(N, A)` that images seem to have, on the encoder's device.

        Args:
            images: `(N, C, H, W)` in `[-1, 1]`.

        Raises:
            ValueError: If the images have another shape than those that it was fitted to, or are
                not in their range.
        """
        check_real("images", images)
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images must have the shape (N, {', '.join(map(str, self.image_shape))}), "
                f"got {tuple(images.shape)}"
            )
        if len(images):
            check_range(images)
        return _read(self.network, images.to(self.mean), self.mean, self.std)


def fit_encoder(
    decode: Callable[[Tensor], Tensor],
    sample_latents: Callable[[int, torch.Generator], Tensor],
    *,
    directions: Tensor | None = None,
    steps: int = 2_000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    channels: int = 16,
    held_out: int = 1_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> FittedEncoder:
    """Fits an encoder to latents and images of a generator, for the supervised metrics.

    With `encoder = fit_encoder(gan.decode, gan.sample_latents)`, the codes of a data set's images
    are `encoder.encode(images)`, and every metric of codes and factors applies to a GAN. Report
    `encoder.r_squared` beside the scores.

    What the scores then measure: whether the latent that this encoder reads off an image with known
    factors moves with one factor. They judge generator and encoder together.

    What they do not measure: the encoder inverts the generator on the generator's own images. On a
    data set's images it meets another distribution, and answers all the same: what it says of an
    image that the generator cannot make means little, and `r_squared` does not show it. Where
    several latents give the same image there is nothing to read: a latent with a low `r_squared` is
    dead, or entangled beyond recognition, or beyond this small network; scores of its code mean
    nothing. A code can be a blend of latents that look alike, and so score lower than the
    generator deserves. To compare a GAN with a VAE, fit an encoder to the VAE's decoder too: its
    own encoder has seen the data set. It is no bound on how well a generator can be inverted.

    The network has strided convolutions down to 4 × 4 pixels and two linear layers; Adam with a
    cosine schedule to zero minimises the squared error on fresh pairs in each step, so that it
    cannot overfit. A minute or two at 64 × 64 pixels on two cores, besides the generator's time for
    `steps · batch_size` images. On a CPU, a seed and a number of threads decide about the encoder.

    Args:
        decode: Gives images `(n, C, H, W)` in `[-1, 1]` of latents `(n, D)`; called without a
            gradient.
        sample_latents: Draws `n` latents `(n, D)` of the prior from a generator (on the CPU).
        directions: Read `z @ directions.T` with directions `(A, D)` in place of the `D` latents:
            an EigenGAN's axes without its noise, say.
        steps: Number of steps of Adam.
        batch_size: Pairs per step.
        learning_rate: In the first step.
        channels: Channels of the first convolution; later ones have twice and four times as many.
        held_out: Pairs that `r_squared` is measured on.
        seed: Seed for the latents and the network's initial weights.
        device: Where latents are sent and the network is fitted.

    Raises:
        ValueError: If an argument is out of its range, latents, images or directions have another
            shape, latents or images are not finite, or images are beyond `[-1, 1]`.
        FloatingPointError: If the network diverges.

    Examples:
        >>> decode = lambda z: z[:, :1, None, None] * torch.ones(1, 8, 8)
        >>> sample_latents = lambda n, generator: 2 * torch.rand(n, 2, generator=generator) - 1
        >>> encoder = fit_encoder(decode, sample_latents, steps=100)
        >>> encoder.r_squared.round(1) + 0  # the second latent is not in the image
        array([1., 0.])
        >>> encoder.encode(decode(torch.zeros(3, 2))).shape
        torch.Size([3, 2])
    """
    check_at_least(1, steps=steps, batch_size=batch_size, channels=channels)
    check_at_least(2, held_out=held_out)
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
    checked = CheckedDecoder(
        decode, tolerance=None
    )  # noise is part of what the encoder is fitted to
    pairs = _Pairs(checked, sample_latents, directions, seed, torch.device(device))
    targets, images = pairs.draw(held_out)
    std, mean = torch.std_mean(targets, dim=0)
    std = torch.where(std > 0, std, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConvolutionalEncoder(images.shape[1:], targets.shape[1], channels=channels)
    network.to(images.device)
    _fit(network, lambda: pairs.draw(batch_size), mean, std, steps, learning_rate)
    predictions = _read(network, images, mean, std)
    if not predictions.isfinite().all():
        raise FloatingPointError("the encoder diverged: choose a lower learning_rate")
    r_squared = _r_squared(targets, predictions)
    varying = ~np.isnan(r_squared)
    return FittedEncoder(
        score=float(r_squared[varying].mean()) if varying.any() else math.nan,
        r_squared=r_squared,
        network=network,
        image_shape=tuple(images.shape[1:]),
        mean=mean,
        std=std,
        caveat=checked.caveat,
    )


class ConvolutionalEncoder(nn.Module):
    """Strided convolutions down to 4 × 4 pixels, then two linear layers.

    Args:
        image_shape: `(C, H, W)`; images with more than `LARGEST_SIZE` pixels a side are averaged
            down to that.
        outputs: Numbers per image.
        channels: Channels of the first convolution; later ones have twice and four times as many.

    Examples:
        >>> ConvolutionalEncoder((3, 100, 50), 7, channels=4)(torch.zeros(2, 3, 100, 50)).shape
        torch.Size([2, 7])
    """

    def __init__(self, image_shape: tuple[int, ...], outputs: int, *, channels: int) -> None:
        super().__init__()
        width, *size = image_shape
        self.size = [min(side, LARGEST_SIZE) for side in size]
        layers: list[nn.Module] = []
        height, breadth, next_width = *self.size, channels
        while min(height, breadth) >= 2 * SMALLEST_SIZE:
            layers += [nn.Conv2d(width, next_width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            width, next_width = next_width, min(2 * next_width, 4 * channels)
            height, breadth = height // 2, breadth // 2
        layers += [nn.Flatten(), nn.Linear(width * height * breadth, 16 * channels)]
        self.layers = nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Linear(16 * channels, outputs))

    def forward(self, images: Tensor) -> Tensor:
        """The numbers `(N, outputs)` of images `(N, C, H, W)`."""
        if list(images.shape[2:]) != self.size:
            images = interpolate(images, size=self.size, mode="area")
        return self.layers(images)


@dataclass
class _Pairs:
    """Draws latents, or their coordinates along directions, and the images of them."""

    decode: CheckedDecoder
    sample_latents: Callable[[int, torch.Generator], Tensor]
    directions: Tensor | None
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @torch.no_grad()
    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Coordinates `(n, A)` and images `(n, C, H, W)`, in single precision."""
        latents = self.sample_latents(n, self.generator)
        check_real("latents", latents)
        if latents.ndim != 2 or len(latents) != n or not latents.is_floating_point():
            raise ValueError(
                f"sample_latents must give floating-point numbers of shape ({n}, D), "
                f"got {latents.dtype} of shape {tuple(latents.shape)}"
            )
        if not latents.isfinite().all():
            raise ValueError("sample_latents must give finite numbers, got NaN or infinity")
        latents = latents.to(self.device)
        images = self.decode(latents)
        if min(images.shape[2:]) < SMALLEST_SIZE:
            raise ValueError(
                f"decode must give images with H and W at least {SMALLEST_SIZE}, got the shape "
                f"{tuple(images.shape)}"
            )
        return self._project(latents).to(images.device).float(), images.float()

    def _project(self, latents: Tensor) -> Tensor:
        if self.directions is None:
            return latents
        check_real("directions", self.directions)
        shape = tuple(self.directions.shape)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != latents.shape[1]:
            raise ValueError(
                f"directions must have the shape (A, {latents.shape[1]}) with A ≥ 1, got {shape}"
            )
        return latents @ self.directions.to(latents).mT


def _fit(
    network: nn.Module,
    draw: Callable[[], tuple[Tensor, Tensor]],
    mean: Tensor,
    std: Tensor,
    steps: int,
    learning_rate: float,
) -> None:
    """Minimises the squared error of the standardised coordinates, on a fresh batch per step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for _ in range(steps):
        targets, images = draw()
        with torch.enable_grad():  # a caller may score without gradients
            loss = mse_loss(network(images), (targets - mean) / std)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)


@torch.no_grad()
def _read(network: nn.Module, images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The coordinates `(N, A)` of images, some at a time."""
    return torch.cat([network(chunk) for chunk in images.split(CHUNK)]) * std + mean


def _r_squared(targets: Tensor, predictions: Tensor) -> np.ndarray:
    """Per column of `(N, A)`; NaN for a constant one."""
    targets, predictions = targets.double(), predictions.double()
    error = (targets - predictions).square().sum(dim=0)
    variance = (targets - targets.mean(dim=0)).square().sum(dim=0)
    constant = (targets == targets[0]).all(dim=0)  # whose variance may be rounding, not 0
    return torch.where(constant, math.nan, 1 - error / variance).cpu().numpy()
