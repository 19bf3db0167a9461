"""What metrics are computed from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

from disentangle.evaluation.processes import BATCH
from disentangle.evaluation.representations import Points
from disentangle.metrics import FeatureMoments, Features

NEEDS = {
    "codes": "codes: a model with an encoder, or --encoder fit",
    "factors": "a data set with known factors",
    "test split": "the arrays test_codes and test_factors",
    "rendering": "a run whose data set renders any factors",
    "axes": "the run of a generator",
    "generator": "the run of a generator",
    "images": "the run of a generator and its data set",
    "classifier": "a run of the task classification",
    "peers": "two or more runs that differ in their seed only, or with --udr.across_settings true "
    "have the same data set and number of codes",
}
MERGED = 4096  # features whose moments are taken at once


@dataclass(frozen=True)
class Inputs:
    """What a kind of metric is computed from.

    Attributes:
        needs: Of the keys of `NEEDS`.
        arguments: Gives the metric's argument of that name, of a target.
        protocol: Gives what the arguments say of the protocol, of a target.
        usual: Gives the metric's options that a target decides where they are None.
        shared: Whether the metric itself encodes or decodes, which all processes do together.
    """

    needs: tuple[str, ...]
    arguments: Mapping[str, Callable[[Any], Any]]
    protocol: Callable[[Any], dict[str, Any]] = lambda target: {}
    usual: Callable[[Any], dict[str, Any]] = lambda target: {}
    shared: bool = False


CODES = Inputs(
    ("codes",),
    {"codes": lambda s: s.points.codes},
    lambda s: describe_points(s.points),
)
FACTORS = Inputs(
    ("codes", "factors"),
    {**CODES.arguments, "factors": lambda s: s.points.factors},
    CODES.protocol,
)
SPLIT = Inputs(
    ("codes", "factors", "test split"),
    {
        **FACTORS.arguments,
        "test_codes": lambda s: s.points.test_codes,
        "test_factors": lambda s: s.points.test_factors,
    },
    lambda s: describe_points(s.points) | {"test_points": len(s.points.test_codes)},
)
RENDERED = Inputs(
    ("codes", "factors", "rendering"),
    {"represent": lambda s: s.represent, "factor_sizes": lambda s: s.factor_sizes},
    shared=True,
)
GROWN = Inputs(
    SPLIT.needs,
    {**SPLIT.arguments, "progress": lambda s: partial(s.progress.follow, unit="tree")},
    SPLIT.protocol,
)
PEERS = Inputs(
    ("codes", "peers"),
    {
        "codes": lambda s: [peer.points.codes for peer in s.peers],
        "kl": lambda s: gather_divergences(s),
    },
    lambda s: {
        "points": len(s.points.codes),
        "kl": "unknown" if gather_divergences(s) is None else "of the posterior",
        "across_settings": s.across_settings,
        "runs": [peer.name for peer in s.peers],
    },
)
AXES = Inputs(
    ("axes",),
    {
        "decode": lambda s: s.decode,
        "latents": lambda s: s.latents,
        "directions": lambda s: s.directions,
        "std": lambda s: s.stds,
        "batch_size": lambda s: BATCH,
    },
    lambda s: {"latents": s.draws.latents} | s.origin_of_axes,
    shared=True,
)
PAIRS = Inputs(
    ("axes",),
    {
        "decode": lambda s: s.decode,
        "sample": lambda s: s.sample,
        "decode_batch_size": lambda s: BATCH,
        "progress": lambda s: partial(s.progress.follow, unit="epoch"),
    },
    lambda s: s.origin_of_axes,
    usual=lambda s: {"coordinates": s.coordinates},
    shared=True,
)
PATHS = Inputs(
    ("generator",),
    {
        "decode": lambda s: s.decode,
        "sample": lambda s: s.sample,
        "distance": lambda s: s.distance,
        "batch_size": lambda s: BATCH,
    },
    shared=True,
)
FEATURES = Inputs(
    ("generator", "images"),
    {"features": lambda s: s.generated_features, "reference": lambda s: s.reference_features},
    lambda s: {
        "images": len(s.generated_features.values),
        "reference_images": len(s.reference_features.values),
    },
)
MOMENTS = Inputs(
    FEATURES.needs,
    {
        "features": lambda s: gather_moments(s.generated_features),
        "reference": lambda s: gather_moments(s.reference_features),
    },
    FEATURES.protocol,
)
CLASSIFIED = Inputs(
    ("classifier",),
    {"logits": lambda s: s.logits, "labels": lambda s: s.labels},
    lambda s: {"images": len(s.data), "split": s.split},
    shared=True,
)


def describe_points(points: Points) -> dict[str, Any]:
    """Number of training points, and of those that they were drawn from."""
    source = {} if points.drawn_from is None else {"drawn_from": points.drawn_from}
    return {"points": len(points.codes)} | source


def gather_divergences(target: Any) -> list[np.ndarray] | None:
    """Mean divergence `(K,)` of each code of each peer from its prior; None if one has none."""
    found = [peer.points.divergences for peer in target.peers]
    known = [divergences for divergences in found if divergences is not None]
    return known if len(known) == len(found) else None


def gather_moments(features: Features) -> FeatureMoments:
    """The moments of features, a part at a time: double precision of all would take gigabytes."""
    parts: Sequence[Any] = [
        features.values[start : start + MERGED] for start in range(0, len(features.values), MERGED)
    ]
    moments = (FeatureMoments.of(Features(np.asarray(part), features.origin)) for part in parts)
    return reduce(FeatureMoments.merge, moments)
