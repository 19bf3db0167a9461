"""The model of a run, with the data set that it was trained on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers import ModelMixin
from torch import Tensor

from disentangle.data import GroundTruthData, ImageData, scale_pixels
from disentangle.evaluation.encoded_images import EncodedImages
from disentangle.evaluation.feature_extraction import SharedDistance, look_at
from disentangle.evaluation.feature_sets import load_distance, load_network
from disentangle.evaluation.processes import DECODED, Processes
from disentangle.evaluation.progress import Progress
from disentangle.evaluation.representations import Points, Target, name_codes
from disentangle.evaluation.request import Draws
from disentangle.losses.elbo import gaussian_divergence
from disentangle.metrics import Features, FittedEncoder, fit_encoder
from disentangle.metrics.features import FeatureNetwork
from disentangle.models import Encoder, LatentVAE, RotatedGenerator, SubspaceVAE
from disentangle.runs.scores_file import ALONG_SEFA, FITTED


class GeneratorTarget(Target):
    """The model of a run, with the data set that it was trained on.

    Every process must ask for the same things in the same order: encoding and decoding are shared.

    Args:
        name: Name in tables and messages.
        model: A generator, perhaps with an encoder; a rotated one is judged by its axes only.
        data: Data set, if a metric needs it.
        draws: Numbers of random draws, and their seed.
        processes: Processes that encode and decode.
        device: Device to compute on.
        fits_encoder: Whether `fit_encoder` will be called, for codes by an encoder that is fitted
            to the generator in place of its own.
    """

    def __init__(
        self,
        name: str,
        model: ModelMixin | RotatedGenerator,
        data: ImageData | None,
        *,
        draws: Draws,
        processes: Processes,
        device: torch.device,
        fits_encoder: bool = False,
    ) -> None:
        self.name, self.draws = name, draws
        self.model: Any = model
        self.data: Any = data
        self.processes, self.device, self.fits_encoder = processes, device, fits_encoder
        self.progress = Progress(shown=processes.is_first)
        self.suffixes = {"codes": FITTED} if fits_encoder else {}
        self.encoder: Callable[[Tensor], Tensor] | None = None
        self.peers: Sequence[Target] = (self,)
        self.offers = {"axes", "generator"}
        if isinstance(model, RotatedGenerator):
            self.offers = {"axes"}
            self.suffixes = {"axes": ALONG_SEFA}
        elif data is not None:
            self.offers.add("images")
            if fits_encoder or isinstance(model, Encoder):
                self.offers.add("codes")
                if isinstance(data, GroundTruthData):
                    self.offers |= {"factors", "test split", "rendering"}

    def use_device(self) -> None:
        """Move the model to the device, and let it compute in full single precision."""
        # rounds convolutions to 10 bits on a GPU, which steps along a path do not survive
        torch.backends.cudnn.allow_tf32 = False
        self.model.to(self.device)

    def fit_encoder(self, **protocol: Any) -> FittedEncoder:
        """Fit an encoder that predicts the axes' coordinates from images, in the first process."""

        def decode(latents: Tensor) -> Tensor:
            self.progress.advance(len(latents))
            return self.model.decode(latents)

        def fit() -> FittedEncoder:
            found = fit_encoder(
                decode,
                self.model.sample_latents,
                directions=self.directions,
                seed=self.draws.seed,
                device=self.device,
                **protocol,
            )
            return _move(found, torch.device("cpu"))

        fitted = self.processes.on_first(fit)
        self.encoder = _move(fitted, self.device).encode
        return fitted

    @cached_property
    def points(self) -> Points:  # type: ignore[override]
        """Codes and factors of random images of the data set, each encoded once."""
        draws, rng = self.draws, np.random.default_rng(self.draws.seed)
        count = draws.points + draws.test_points
        factors: np.ndarray | None = None
        names: tuple[str, ...] = ()
        if isinstance(self.data, GroundTruthData):
            factors, names = self.data.sample_factors(count, rng), self.data.factor_names
            indices = self.data.index(factors)
        else:
            # With replacement, as factors are drawn.
            indices = rng.integers(0, len(self.data), size=count)
        codes, split = self.encode(indices), draws.points
        return Points(
            codes=codes[:split],
            factors=None if factors is None else factors[:split],
            test_codes=codes[split:],
            test_factors=None if factors is None else factors[split:],
            code_names=self._name_codes(codes),
            factor_names=names,
            divergences=self._measure_divergences(indices[:split]),
        )

    @property
    def point_count(self) -> int:
        """Number of training points, which need not be encoded for it."""
        return self.draws.points

    def _name_codes(self, codes: np.ndarray) -> tuple[str, ...]:
        axes = self.model.axes
        if len(axes) != codes.shape[1]:
            return name_codes(codes)
        groups = {axis.group for axis in axes}
        return tuple(a.name if len(groups) == 1 else f"{a.group}, {a.name}" for a in axes)

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """Number of values of each factor."""
        return self.data.factor_sizes

    def represent(self, factors: np.ndarray) -> np.ndarray:
        """The codes `(N, K)` of factors `(N, F)`: render, then encode."""
        return self.encode(self.data.index(factors))

    def encode(self, indices: np.ndarray) -> np.ndarray:
        """The codes `(N, K)` of the data set's images `(N,)`."""
        rows = self._encoded[indices]
        return rows[:, : rows.shape[1] // 2] if self.has_posterior else rows

    @property
    def has_posterior(self) -> bool:
        """True if the encoder returns the mean and variance of a posterior."""
        return isinstance(self.model, SubspaceVAE | LatentVAE) and not self.fits_encoder

    @cached_property
    def _encoded(self) -> EncodedImages:
        return EncodedImages(
            len(self.data), self._encode_images, processes=self.processes, progress=self.progress
        )

    def _encode_images(self, indices: Tensor) -> Tensor:
        """Codes `(N, K)`, or means and log variances of the posterior, `(N, 2K)`."""
        images = self._read_images(indices)
        if self.has_posterior:
            return torch.cat(self.model.infer(images), dim=1)
        if not self.fits_encoder:
            return self.model.encode(images)
        if self.encoder is None:
            raise ValueError(f"no encoder could be fitted to {self.name}")
        return self.encoder(images)

    def _measure_divergences(self, indices: np.ndarray) -> np.ndarray | None:
        """Mean divergence `(K,)` of the posterior from the prior over images `(N,)`."""
        if not self.has_posterior:
            return None
        mean, log_variance = torch.from_numpy(self._encoded[indices]).double().chunk(2, dim=1)
        return gaussian_divergence(mean, log_variance).numpy()

    def _read_images(self, indices: Tensor) -> Tensor:
        return scale_pixels(self.data.__getitems__(indices.numpy()).to(self.device))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The images `(N, C, H, W)` of latents `(N, D)`."""
        images = self.processes.map(self.model.decode, latents, chunk=DECODED)
        self.progress.advance(len(latents))
        return images

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Latents `(count, D)` of the prior, the same in every process."""
        return self.model.sample_latents(count, generator).to(self.device)

    @cached_property
    def latents(self) -> Tensor:
        """Latents `(N, D)` around which the axes are moved."""
        return self.sample(self.draws.latents, self._new_generator())

    def _new_generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.draws.seed)

    @property
    def directions(self) -> Tensor:
        """Unit vectors `(A, D)` of the model's axes."""
        return torch.stack([axis.direction for axis in self.model.axes]).to(self.device)

    @property
    def origin_of_axes(self) -> dict[str, str]:
        """Entry of a protocol on axes that are not the model's own."""
        rotated = isinstance(self.model, RotatedGenerator)
        return {"axes": self.model.axes[0].group} if rotated else {}

    @property
    def coordinates(self) -> list[int] | None:
        """Coordinate of each axis; None if an axis is along none of them, or two are along one."""
        rows, columns = self.directions.nonzero(as_tuple=True)
        found = columns.tolist()
        whole = rows.tolist() == list(range(len(self.model.axes)))
        return found if whole and len(set(found)) == len(found) else None

    @property
    def stds(self) -> list[float]:
        """Standard deviation of the prior along each axis."""
        return [axis.std for axis in self.model.axes]

    @cached_property
    def distance(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The perceptual distance of images, shared by the processes."""
        return SharedDistance(load_distance(self.draws.features).to(self.device), self.processes)

    @cached_property
    def generated_features(self) -> Features:
        """Features of generated images."""
        latents = self.sample(self.draws.features.images, self._new_generator())
        return self._look_at(self.model.decode, latents)

    @cached_property
    def reference_features(self) -> Features:
        """Features of images of the data set."""
        rng = np.random.default_rng(self.draws.seed)
        indices = rng.choice(len(self.data), self.reference_count, replace=False)
        return self._look_at(self._read_images, torch.from_numpy(indices))

    @property
    def reference_count(self) -> int:
        """Number of images of the data set that others are compared with."""
        return min(self.draws.features.reference_images, len(self.data))

    @cached_property
    def _network(self) -> FeatureNetwork:
        return load_network(self.draws.features).to(self.device)

    def _look_at(self, make_images: Callable[[Tensor], Tensor], rows: Tensor) -> Features:
        return look_at(
            make_images, rows, self._network, processes=self.processes, progress=self.progress
        )


def _move(encoder: FittedEncoder, device: torch.device) -> FittedEncoder:
    return replace(
        encoder,
        network=encoder.network.to(device),
        mean=encoder.mean.to(device),
        std=encoder.std.to(device),
    )
