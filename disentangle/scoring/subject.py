"""What is scored: the model of a run, or codes that came from anywhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from diffusers import ModelMixin
from torch import Tensor
from tqdm import tqdm

from disentangle.data import GroundTruthData, ImageData, scale_pixels
from disentangle.metrics import Features, FittedEncoder, fit_encoder
from disentangle.metrics.features import FeatureNetwork, FeatureOrigin, describe
from disentangle.models import Encoder
from disentangle.scoring.feature_sets import FeatureOptions, load_distance, load_network
from disentangle.scoring.points import Points, name_codes
from disentangle.scoring.processes import Processes

ENCODED = 512  # images that a process renders and encodes at once
DECODED = 32  # images that a process decodes at once
BATCH = 8 * DECODED  # images that a metric asks for at once, so that several processes have work
BLOCK = 4096  # images between two movements of a progress bar


@dataclass(frozen=True)
class Draws:
    """How much is drawn of a subject, and with which seed.

    Attributes:
        seed: Of every draw.
        points: Training points.
        test_points: Test points.
        latents: Latents around which each axis is moved.
        features: Networks and numbers of images for FID, KID and path lengths.
    """

    seed: int = 0
    points: int = 10_000
    test_points: int = 5_000
    latents: int = 300
    features: FeatureOptions = field(default_factory=FeatureOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:  # what scikit-learn takes
            raise ValueError(f"seed must be between 0 and 2**32 - 1, got {self.seed}")
        for name, key in (
            ("points", "points"),
            ("test_points", "test_points"),
            ("activeness.latents", "latents"),
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, key)}")


class Subject:
    """Codes that came from anywhere; base of what has more to offer.

    Attributes:
        name: For tables and messages.
        offers: What a metric may ask of it, of the keys of `NEEDS` in the registry.
        draws: How much is drawn.
        points: Codes and factors.
        peers: Subjects with the same points, itself included, for metrics of several runs.
        suffix: What distinguishes the names of its scores from those of the model's own encoder.
    """

    suffix = ""

    def __init__(self, name: str, points: Points, draws: Draws) -> None:
        self.name = name
        self.draws = draws
        self.points = points
        self.peers: Sequence[Subject] = (self,)
        self.offers = {"codes", "factors"}
        if points.test_codes is not None:
            self.offers.add("test split")

    def use_device(self) -> None:
        """Moves what computes to where it computes."""

    @contextmanager
    def progress(self, title: str, total: int | None) -> Iterator[None]:
        """Shows a bar of the images that are encoded or decoded, of which there are none."""
        yield


class RunSubject(Subject):
    """The model of a run, with the data set that it was trained on.

    Every process must ask for the same things in the same order: encoding and decoding are shared.

    Args:
        name: For tables and messages.
        model: A generator, perhaps an encoder.
        data: The data set, if anything needs it.
        draws: How much is drawn.
        processes: Which encode and decode.
        device: Where.
        fits_encoder: Whether `fit_encoder` will be called, for codes by an encoder that is fitted
            to the generator in place of its own.
    """

    def __init__(
        self,
        name: str,
        model: ModelMixin,
        data: ImageData | None,
        *,
        draws: Draws,
        processes: Processes,
        device: torch.device,
        fits_encoder: bool = False,
    ) -> None:
        self.name, self.model, self.draws = name, model, draws
        self.data: Any = data
        self.processes, self.device, self.fits_encoder = processes, device, fits_encoder
        self.suffix = " (fitted encoder)" if fits_encoder else ""
        self.encoder: Callable[[Tensor], Tensor] | None = None
        self.peers = (self,)
        self.offers = {"generator"}
        self.bar: Any = None
        if data is not None:
            self.offers.add("images")
            if fits_encoder or isinstance(model, Encoder):
                self.offers.add("codes")
                if isinstance(data, GroundTruthData):
                    self.offers |= {"factors", "test split", "rendering"}

    def use_device(self) -> None:
        """Moves the model to where it computes."""
        self.model.to(self.device)

    def fit_encoder(self, **protocol: Any) -> FittedEncoder:
        """Fits the encoder that reads the axes' coordinates off images, in the first process."""

        def fit() -> FittedEncoder:
            return _move(
                fit_encoder(
                    self.model.decode,
                    self.model.sample_latents,
                    directions=self.directions,
                    seed=self.draws.seed,
                    device=self.device,
                    **protocol,
                ),
                torch.device("cpu"),
            )

        fitted = self.processes.on_first(fit)
        self.encoder = _move(fitted, self.device).encode
        return fitted

    @contextmanager
    def progress(self, title: str, total: int | None) -> Iterator[None]:
        """Shows a bar of the images that are encoded or decoded, on a terminal."""
        hidden = None if self.processes.is_first else True  # None: unless it is a terminal
        with tqdm(total=total, desc=title, unit="image", leave=False, disable=hidden) as self.bar:
            yield
        self.bar = None

    @cached_property
    def points(self) -> Points:  # type: ignore[override]
        """Codes and factors of random images of the data set, each encoded once."""
        draws, rng = self.draws, np.random.default_rng(self.draws.seed)
        count = draws.points + draws.test_points
        factors: np.ndarray | None = None
        names: tuple[str, ...] = ()
        if isinstance(self.data, GroundTruthData):
            factors, names = self.data.sample_factors(count, rng), self.data.factor_names
            codes = self.represent(factors)
        else:
            # With replacement, as factors are drawn.
            codes = self.encode(rng.integers(0, len(self.data), size=count))
        split = draws.points
        return Points(
            codes=codes[:split],
            factors=None if factors is None else factors[:split],
            test_codes=codes[split:],
            test_factors=None if factors is None else factors[split:],
            code_names=self._name_codes(codes),
            factor_names=names,
        )

    def _name_codes(self, codes: np.ndarray) -> tuple[str, ...]:
        axes = self.model.axes
        if len(axes) != codes.shape[1]:
            return name_codes(codes)
        groups = {axis.group for axis in axes}
        return tuple(a.name if len(groups) == 1 else f"{a.group}, {a.name}" for a in axes)

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """How many values each factor takes."""
        return self.data.factor_sizes

    def represent(self, factors: np.ndarray) -> np.ndarray:
        """The codes `(N, K)` of factors `(N, F)`: render, then encode."""
        return self.encode(self.data.index(factors))

    @torch.no_grad()
    def encode(self, indices: np.ndarray) -> np.ndarray:
        """The codes `(N, K)` of the data set's images `(N,)`; each image is encoded once, ever."""
        known, codes = self._encoded
        for start in range(0, len(indices), BLOCK):
            block = indices[start : start + BLOCK]
            new = np.unique(block[~known[block]])
            if len(new):
                found = self.processes.map(
                    self._encode_images, torch.from_numpy(new), chunk=ENCODED
                )
                if codes is None:
                    codes = np.empty((len(known), found.shape[1]), dtype=np.float32)
                    self._encoded = known, codes
                codes[new], known[new] = found.float().cpu().numpy(), True
            self._advance(len(block))
        assert codes is not None  # there is at least one index
        return codes[indices]

    @cached_property
    def _encoded(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Which images of the data set have been encoded, and the codes of all."""
        return np.zeros(len(self.data), dtype=bool), None

    def _encode_images(self, indices: Tensor) -> Tensor:
        images = self._read_images(indices)
        return (self.encoder or self.model.encode)(images)

    def _read_images(self, indices: Tensor) -> Tensor:
        return scale_pixels(self.data.__getitems__(indices.numpy()).to(self.device))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The images `(N, C, H, W)` of latents `(N, D)`."""
        images = self.processes.map(self.model.decode, latents, chunk=DECODED)
        self._advance(len(latents))
        return images

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Latents `(count, D)` of the prior, the same in every process."""
        return self.model.sample_latents(count, generator).to(self.device)

    @cached_property
    def latents(self) -> Tensor:
        """Latents `(N, D)` around which the axes are moved."""
        return self.sample(self.draws.latents, torch.Generator().manual_seed(self.draws.seed))

    @property
    def directions(self) -> Tensor:
        """Unit vectors `(A, D)` of the model's axes."""
        return torch.stack([axis.direction for axis in self.model.axes]).to(self.device)

    @property
    def stds(self) -> list[float]:
        """Standard deviation of the prior along each axis."""
        return [axis.std for axis in self.model.axes]

    @cached_property
    def distance(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The perceptual distance of images, shared by the processes."""
        return _SharedDistance(self)

    @cached_property
    def generated_features(self) -> Features:
        """Features of generated images."""
        latents = self.sample(
            self.draws.features.images, torch.Generator().manual_seed(self.draws.seed)
        )
        return self._extract(self.model.decode, latents)

    @cached_property
    def reference_features(self) -> Features:
        """Features of images of the data set."""
        rng = np.random.default_rng(self.draws.seed)
        count = min(self.draws.features.reference_images, len(self.data))
        indices = rng.choice(len(self.data), count, replace=False)
        return self._extract(self._read_images, torch.from_numpy(indices))

    @cached_property
    def _feature_network(self) -> FeatureNetwork:
        return load_network(self.draws.features).to(self.device)

    @torch.no_grad()
    def _extract(self, make_images: Callable[[Tensor], Tensor], rows: Tensor) -> Features:
        network = self._feature_network
        blocks = []
        for block in rows.split(BATCH):
            extract = partial(_compose, network, make_images)
            blocks.append(self.processes.map(extract, block, chunk=DECODED).cpu().numpy())
            self._advance(len(block))
        origin = describe(network)
        shape = tuple(make_images(rows[:1]).shape[1:])
        return Features(np.concatenate(blocks), FeatureOrigin(origin.network, origin.caveat, shape))

    def _advance(self, images: int) -> None:
        if self.bar is not None:
            self.bar.update(images)


def _compose(
    outer: Callable[[Tensor], Tensor], inner: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    return outer(inner(x))


def _move(encoder: FittedEncoder, device: torch.device) -> FittedEncoder:
    return replace(
        encoder,
        network=encoder.network.to(device),
        mean=encoder.mean.to(device),
        std=encoder.std.to(device),
    )


class _SharedDistance:
    """A perceptual distance whose pairs the processes divide among themselves."""

    def __init__(self, subject: RunSubject) -> None:
        self.network = load_distance(subject.draws.features).to(subject.device)
        self.processes = subject.processes
        origin = describe(self.network)
        self.name, self.caveat, self.comparable = origin.network, origin.caveat, not origin.caveat

    def __call__(self, images: Tensor, others: Tensor) -> Tensor:
        """The distances `(N,)` of images `(N, C, H, W)`."""
        return self.processes.map(self.network, images, others, chunk=DECODED)
