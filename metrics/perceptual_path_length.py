"""Perceptual path length (PPL).

Karras, Laine and Aila, A Style-Based Generator Architecture for Generative Adversarial Networks,
CVPR 2019, https://arxiv.org/abs/1812.04948, section 4.1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from disentangle.metrics.decoding import CheckedDecoder
from disentangle.metrics.features import describe
from disentangle.metrics.image_range import join_caveats
from disentangle.metrics.inputs import check_at_least, check_real
from disentangle.metrics.latent_pairs import as_coordinates, decode_pairs, draw_latents
from disentangle.metrics.results import Result

Interpolation = Literal["slerp", "unit_slerp", "lerp"]
Sampling = Literal["full", "end"]
NOISE = 0.1  # of epsilon: what one image may differ by when it is decoded again


@dataclass(frozen=True, eq=False)
class PathLengthResult(Result):
    """Result of `perceptual_path_length`.

    Attributes:
        score: Mean of the lengths between the two percentiles.
        standard_error: Standard error of that mean; NaN with one length.
        lengths: Squared speed of the image at each point, in units of the distance per squared
            path parameter, shape `(N,)`.
        bounds: The lengths at the two percentiles; those outside are left out.
        features: The name of the distance.
        caveat: Why the score cannot be compared with published ones, and that the images look like
            `[0, 1]`; empty if neither.
    """

    undefined = frozenset({"standard_error"})

    score: float
    standard_error: float
    lengths: np.ndarray
    bounds: tuple[float, float]
    features: str
    caveat: str


def perceptual_path_length(
    decode: Callable[[Tensor], Tensor],
    sample: Callable[[int, torch.Generator], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    *,
    samples: int = 10_000,
    epsilon: float = 1e-4,
    sampling: Sampling = "full",
    interpolation: Interpolation = "slerp",
    coordinates: Sequence[int] | None = None,
    percentiles: tuple[float, float] = (1.0, 99.0),
    maximum_size: int | None = 256,
    batch_size: int = 64,
    seed: int = 0,
) -> PathLengthResult:
    """Perceptual path length: rate of change of the image along paths between random latents.

    Karras et al. 2019, https://arxiv.org/abs/1812.04948: `E[d(G(z(t)), G(z(t + ε))) / ε²]`, where
    `z(t)` runs from one draw of the prior at `t = 0` to another at `t = 1`.

    Range: from 0, images that do not change, without an upper end. It grows with the length of the
    path, and so with the number of latents that matter; LPIPS depends on the size of the images.

    Blind to what changes: a generator whose images hardly vary has the shortest paths of all, so
    read it beside FID. Low values mean smoothness, which entangled latents have as well.

    Protocol: that of StyleGAN in `Z`: 10,000 paths, `ε = 1e-4`, `t ~ U(0, 1)` (`full`) or `t = 0`
    (`end`), LPIPS with a VGG trunk, the mean between the 1st and the 99th percentile; images above
    256 pixels are averaged down by a whole factor. Images are not cropped. The random numbers are
    not those of any other program.

    Interpolation: `slerp` goes along `(sin((1 − t)θ) z₀ + sin(tθ) z₁) / sin θ` (Shoemake 1985,
    https://doi.org/10.1145/325165.325242; White 2016, https://arxiv.org/abs/1609.04468), which has
    the prior's own lengths at both ends and, for a Gaussian prior in many dimensions, on the way.
    `unit_slerp` puts all latents on the unit sphere, as StyleGAN does: right only for a generator
    that normalises its latents itself. `lerp` is for priors that are not Gaussian.

    Precision: the images must resolve a step of `ε`. Where they are rounded, most pixels stay and a
    few jump by a whole level, the square of which is divided by `ε²`: at `ε = 1e-4` the lengths of
    untrained generators of this toolkit become 2.5 times as large in half precision, 16 to 18 times
    in bfloat16 and 100 to 460 times with 8 bits. At `ε = 1e-2` half precision and bfloat16 are
    within 2 %, and 8 bits still wrong by 1.3 to 5 times. Convolutions in TensorFloat-32, PyTorch's
    default on a GPU, have made them 6 to 18 times as large in an emulation: switch it off by
    `torch.backends.cudnn.allow_tf32 = False`, as `disentangle evaluate` does. Images of a
    half-precision dtype are refused; that a decoder rounds within, or rounds and then returns
    float32, is not noticed.

    With `coordinates`, only these latents move and the others stay at `z₀`: one block of an
    EigenGAN, for example.

    Args:
        decode: Gives images `(N, C, H, W)` in `[-1, 1]`, in single or double precision, of latents
            `(N, D)`; called without a gradient, for the first batch twice. It must treat equal
            latents alike: fix its noise.
        sample: Gives `n` draws of the prior, shape `(n, D)`, of `n` and a generator.
        distance: Gives distances `(N,)` of two batches of images, such as `load_lpips()`.
        samples: Number of paths.
        epsilon: Step along the path.
        sampling: Where on the path the steps are taken.
        interpolation: What the path is.
        coordinates: Which latents move; by default all of them.
        percentiles: Lengths outside are left out.
        maximum_size: Height and width above which images are averaged down; None for never.
        batch_size: Images decoded at once, at least 2.
        seed: Seed for the paths and the points on them.

    Raises:
        ValueError: If an argument is out of its range, shapes do not fit, one coordinate only is to
            go along an arc, images are in half precision or beyond `[-1, 1]`, those of a batch
            differ by more than a tenth of `epsilon` when it is decoded again, or a distance is not
            finite.

    Examples:
        >>> decode = lambda z: z.view(-1, 1, 4, 4) / 8
        >>> prior = lambda n, generator: torch.randn(n, 16, generator=generator).double()
        >>> squared = lambda x, y: (8 * (x - y)).square().flatten(1).sum(dim=1)
        >>> result = perceptual_path_length(decode, prior, squared, samples=500)
        >>> round(result.score)  # about 16 (π/2)², that of a quarter circle
        40
    """
    check_at_least(1, samples=samples)
    check_at_least(2, batch_size=batch_size)
    _check_protocol(epsilon, sampling, percentiles, maximum_size)
    generator = torch.Generator().manual_seed(seed)
    start, end = (draw_latents(sample, samples, generator) for _ in range(2))
    t = torch.rand(samples, dtype=torch.float64, generator=generator)
    t = (t if sampling == "full" else torch.zeros_like(t)).to(start.device)
    path = Path(start, end, interpolation, coordinates)
    checked = CheckedDecoder(decode, tolerance=NOISE * epsilon)
    lengths = np.concatenate(
        [
            measure_steps(
                checked,
                distance,
                path.at(rows, t[rows]),
                path.at(rows, t[rows] + epsilon),
                maximum_size,
            )
            for rows in torch.arange(samples).split(batch_size // 2)
        ]
    )
    return summarise(lengths / epsilon**2, distance, percentiles, caveat=checked.caveat)


class Path:
    """Paths between latents, in double precision.

    Args:
        start: Latents `(N, D)` at `t = 0`.
        end: Latents `(N, D)` at `t = 1`.
        interpolation: As in `perceptual_path_length`.
        coordinates: Which latents move; by default all of them.

    Raises:
        ValueError: If the interpolation or a coordinate does not exist, or one coordinate only is
            to go along an arc.

    Examples:
        >>> path = Path(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]]), "slerp")
        >>> path.at(torch.tensor([0]), torch.tensor([0.5]))
        tensor([[2.1213, 0.7071]])
    """

    def __init__(
        self,
        start: Tensor,
        end: Tensor,
        interpolation: Interpolation,
        coordinates: Sequence[int] | None = None,
    ) -> None:
        if interpolation not in get_args(Interpolation):
            raise ValueError(
                f"interpolation must be one of {', '.join(get_args(Interpolation))}, "
                f"got {interpolation!r}"
            )
        self.start, self.end, self.interpolation = start, end, interpolation
        self.coordinates = as_coordinates(coordinates, start.shape[1]).to(start.device)
        if interpolation != "lerp" and len(self.coordinates) < 2:
            # on a line the angle is 0 or 180 degrees: there is no arc
            raise ValueError(f"{interpolation} needs at least 2 coordinates, got 1: use lerp")

    def at(self, rows: Tensor, t: Tensor) -> Tensor:
        """Latents `(B, D)`, in the prior's dtype, of the paths `rows` at `t`, both `(B,)`."""
        z = self.start[rows]
        a, b = (x[rows][:, self.coordinates].double() for x in (self.start, self.end))
        moved = _interpolate(a, b, t[:, None].to(a), self.interpolation)
        return z.index_copy(1, self.coordinates, moved.to(z.dtype))


@torch.no_grad()
def measure_steps(
    decode: CheckedDecoder,
    distance: Callable[[Tensor, Tensor], Tensor],
    before: Tensor,
    after: Tensor,
    maximum_size: int | None,
) -> np.ndarray:
    """Distances `(B,)` of the images of latents `(B, D)` and `(B, D)`, in double precision."""
    pair = decode_pairs(decode, before, after)  # (B, C, H, W) each
    if pair[0].dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"decode must give images in float32 or float64, in which a small step is not "
            f"rounded away, got {pair[0].dtype}"
        )
    lengths = distance(*(average_down(images, maximum_size) for images in pair))
    check_real("distances", lengths)
    if lengths.shape != (len(before),) or not lengths.isfinite().all():
        raise ValueError(
            f"distance must give {len(before)} finite numbers, got {lengths.dtype} of shape "
            f"{tuple(lengths.shape)} with {int((~lengths.isfinite()).sum())} NaN or infinite"
        )
    return lengths.double().cpu().numpy()


def average_down(images: Tensor, maximum_size: int | None) -> Tensor:
    """Images whose shorter side is less than twice `maximum_size`, by means of whole squares.

    Examples:
        >>> average_down(torch.zeros(1, 3, 600, 512), 256).shape
        torch.Size([1, 3, 300, 256])
    """
    factor = 1 if maximum_size is None else max(1, min(images.shape[2:]) // maximum_size)
    return images if factor == 1 else functional.avg_pool2d(images, factor)


def summarise(
    lengths: np.ndarray,
    distance: Callable[[Tensor, Tensor], Tensor],
    percentiles: tuple[float, float],
    *,
    caveat: str,
) -> PathLengthResult:
    """Return the result of lengths `(N,)`, with the caveat of the images beside the distance's."""
    low = np.percentile(lengths, percentiles[0], method="lower")
    high = np.percentile(lengths, percentiles[1], method="higher")
    kept = lengths[(lengths >= low) & (lengths <= high)]
    spread = kept.std(ddof=1) if len(kept) > 1 else np.nan
    origin = describe(distance)
    return PathLengthResult(
        score=float(kept.mean()),
        standard_error=float(spread / np.sqrt(len(kept))),
        lengths=lengths,
        bounds=(float(low), float(high)),
        features=origin.network,
        caveat=join_caveats(origin.caveat, caveat),
    )


def _interpolate(a: Tensor, b: Tensor, t: Tensor, interpolation: Interpolation) -> Tensor:
    """The points `(B, q)` of paths from `a` to `b`, both `(B, q)`, at `t` `(B, 1)`."""
    if interpolation == "lerp":
        return a + t * (b - a)
    if interpolation == "unit_slerp":
        a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
    cosine = functional.cosine_similarity(a, b, dim=1)[:, None].clamp(-1, 1)
    theta = cosine.acos()  # (B, 1)
    # latents on one line have no arc between them; the straight line is the limit for small angles
    straight = theta.sin() < 1e-6
    sine = torch.where(straight, 1.0, theta.sin())
    arc = (((1 - t) * theta).sin() * a + (t * theta).sin() * b) / sine
    return torch.where(straight, a + t * (b - a), arc)


def _check_protocol(
    epsilon: float,
    sampling: str,
    percentiles: tuple[float, float],
    maximum_size: int | None,
) -> None:
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must be between 0 and 1, got {epsilon}")
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling must be one of {get_args(Sampling)}, got {sampling!r}")
    if not 0 <= percentiles[0] <= percentiles[1] <= 100:
        raise ValueError(f"percentiles must ascend from 0 to 100, got {percentiles}")
    if maximum_size is not None:
        check_at_least(1, maximum_size=maximum_size)
