"""Trial calls of metrics, which find a wrong option before the work starts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disentangle.evaluation.generator_target import GeneratorTarget
from disentangle.evaluation.progress import Progress
from disentangle.evaluation.registry import METRICS
from disentangle.evaluation.representations import Points, Target, name_codes
from disentangle.metrics import Features, fit_encoder

FEW = 200  # points of a rehearsal
FACTORS = (2, 3)  # sizes


def check_options(name: str, target: Target, protocol: Mapping[str, Any]) -> None:
    """Call a metric with its options on a few random numbers.

    Where a metric would encode or decode, it has checked its options and is stopped. Nothing is
    done for options that nobody changed.

    Args:
        name: Name of the metric.
        target: Target to score.
        protocol: Options of the metric.

    Raises:
        ValueError: If the metric refuses them, with the option's name in front.
    """
    draws, metric = target.draws, METRICS[name]
    usual = type(draws)(features=draws.features)
    few = "codes" in metric.inputs.needs and draws.points < usual.points
    if protocol == metric.defaults and not few:
        return
    largest = max(draws.points, draws.features.images)
    try:
        _rehearse(name, target, protocol, few=FEW)
    except ValueError:
        # so few points may be what it refuses
        try:
            _rehearse(name, target, protocol, few=largest)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def check_fit(protocol: Mapping[str, Any]) -> None:
    """Call `fit_encoder` until it would decode.

    Raises:
        ValueError: If it refuses its options.
    """

    def decode(latents: Tensor) -> Tensor:
        raise _StartedError

    try:
        fit_encoder(decode, lambda n, generator: torch.zeros(n, 1), **protocol)
    except _StartedError:
        return
    except ValueError as error:
        raise ValueError(f"fit_encoder: {error}") from error


class _StartedError(Exception):
    """The metric is past its checks."""


def _rehearse(name: str, target: Target, protocol: Mapping[str, Any], *, few: int) -> None:
    metric, stand_in = METRICS[name], _StandIn(target, few)
    try:
        given = {key: get(stand_in) for key, get in metric.inputs.arguments.items()}
        metric.call(given, metric.settle(protocol, stand_in), target.draws.seed)
    except _StartedError:
        return


class _StandIn:
    """A target with random numbers in place of codes and features."""

    def __init__(self, target: Target, few: int) -> None:
        self.target, self.few, self.draws = target, few, target.draws
        self.progress = Progress(shown=False)
        self.factor_sizes = FACTORS
        self.peers = [self, self]

    @property
    def points(self) -> Points:
        rng = np.random.default_rng(0)
        splits = []
        for count in (min(self.draws.points, self.few), min(self.draws.test_points, self.few)):
            factors = rng.integers(0, FACTORS, size=(count, len(FACTORS)))
            factors[:2] = [[0, 0], [1, 1]]  # both vary, however few points there are
            splits.append((factors + rng.normal(size=factors.shape), factors))
        (codes, factors), (test_codes, test_factors) = splits
        names = name_codes(codes)
        return Points(codes, factors, test_codes, test_factors, names, names)

    def represent(self, factors: np.ndarray) -> np.ndarray:
        raise _StartedError

    def decode(self, latents: Tensor) -> Tensor:
        raise _StartedError

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        raise _StartedError

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return self._run.model.sample_latents(count, generator)

    @property
    def latents(self) -> Tensor:
        return self.sample(1, torch.Generator().manual_seed(0))

    @property
    def directions(self) -> Tensor:
        return self._run.directions.cpu()

    @property
    def coordinates(self) -> list[int] | None:
        return self._run.coordinates

    @property
    def stds(self) -> list[float]:
        return self._run.stds

    @property
    def generated_features(self) -> Features:
        return self._features(self.draws.features.images)

    @property
    def reference_features(self) -> Features:
        return self._features(self.draws.features.reference_images)

    def _features(self, count: int) -> Features:
        return Features(np.random.default_rng(0).normal(size=(min(count, self.few), 2)))

    @property
    def _run(self) -> GeneratorTarget:
        assert isinstance(self.target, GeneratorTarget)
        return self.target
