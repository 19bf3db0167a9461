"""Features of generated and of real images, for FID and KID, and the distance for path lengths."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from disentangle.metrics import (
    load_fid_inception,
    load_lpips,
    load_torchvision_features,
    random_features,
    squared_feature_distance,
)
from disentangle.metrics.features import FeatureNetwork, PerceptualDistance


@dataclass(frozen=True)
class FeatureOptions:
    """The networks that images are looked at through; nothing is ever downloaded.

    Attributes:
        network: For FID and KID: `inception` (of FID), `random` (needs no file; its values compare
            with no published ones), or the name of a classifier of torchvision, such as `resnet50`.
        path: The file of the network's weights, or its folder; by default torch's hub cache.
        distance: For path lengths: LPIPS with one of three trunks, or `random`, as above.
        distance_path: The file of the trunk's weights, or its folder; by default torch's hub cache.
        images: Images that are generated for FID and KID.
        reference_images: Images of the data set that these are compared with, drawn at random; all
            of them if it has no more.
    """

    network: str = "inception"
    path: str | None = None
    distance: Literal["vgg", "alex", "squeeze", "random"] = "vgg"
    distance_path: str | None = None
    images: int = 50_000
    reference_images: int = 50_000

    def __post_init__(self) -> None:
        for name in ("images", "reference_images"):
            if getattr(self, name) < 2:
                raise ValueError(f"features.{name} must be at least 2, got {getattr(self, name)}")


@functools.cache
def load_network(options: FeatureOptions) -> FeatureNetwork:
    """The network for FID and KID; errors as those of `disentangle.metrics.feature_networks`."""
    if options.network == "random":
        return random_features()
    with _hint("network", "path"):
        if options.network == "inception":
            return load_fid_inception(options.path)
        return load_torchvision_features(options.network, options.path)


@functools.cache
def load_distance(options: FeatureOptions) -> PerceptualDistance:
    """The distance for path lengths; errors as those of `disentangle.metrics.feature_networks`."""
    if options.distance == "random":
        return squared_feature_distance(random_features())
    with _hint("distance", "distance_path"):
        return load_lpips(options.distance, options.distance_path)


@contextmanager
def _hint(name: str, path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} as --features.{path}; --features.{name} random needs none"
        ) from error
