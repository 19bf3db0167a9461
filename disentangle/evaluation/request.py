"""A request for scores: of what, by which metrics, with which options."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch

from disentangle.evaluation.feature_sets import FeatureOptions
from disentangle.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Draws:
    """Numbers of random draws, and their seed.

    Attributes:
        seed: Seed of every draw.
        points: Number of training points.
        test_points: Number of test points.
        latents: Number of latents around which each axis is moved.
        features: Networks and numbers of images for FID, KID and path lengths.

    Raises:
        ValueError: If a number is out of its range.
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


@dataclass(frozen=True)
class Request:
    """Runs or codes to score, the metrics, and their options.

    Attributes:
        runs: Paths of run folders; empty with `codes`.
        codes: Path of a file of codes.
        points: Numbers of training and test points to draw from that file; None for all.
        output: Folder for scores of codes; None writes nothing.
        names: Names of the metrics.
        needs: Kinds of input of any of them, keys of `NEEDS` in `evaluation.inputs`.
        named: Whether each was named itself; then all must be computed.
        protocols: Options of each metric and of `fit_encoder`.
        draws: Numbers of random draws, and their seed.
        device: Device to compute on.
        fits_encoder: Whether an encoder is fitted to each generator.
        sefa: Whether generators are scored along the axes that SeFa finds.
        sefa_layer: Layer that takes in the latents; None finds the first one.
        sefa_normalise: Whether its weight is normalised first, see `sefa_axes`.
        across_settings: Whether runs of different settings are compared, in place of seeds.
        config: Names of the files that options came from.
    """

    runs: Sequence[str]
    codes: str | None
    points: tuple[int | None, int | None]
    output: RunFolder | None
    names: Sequence[str]
    needs: Set[str]
    named: bool
    protocols: Mapping[str, dict[str, Any]]
    draws: Draws
    device: torch.device
    fits_encoder: bool
    sefa: bool
    sefa_layer: str | None
    sefa_normalise: bool
    across_settings: bool
    config: Sequence[str] = ()
