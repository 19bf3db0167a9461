"""Arguments that a target provides to metrics, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
class Argument:
    """An argument that a target provides to a metric, in place of an option.

    Attributes:
        get: Returns the argument, given a target.
        needs: Keys of `NEEDS` that the target must offer.
        protocol: Returns what the argument adds to the protocol, given a target.
        shared: Whether the metric encodes or decodes with it, which all processes do together.
    """

    get: Callable[[Any], Any]
    needs: tuple[str, ...] = ()
    protocol: Callable[[Any], dict[str, Any]] = lambda target: {}
    shared: bool = False


@dataclass(frozen=True)
class Inputs:
    """The arguments of a metric that a target provides, by name."""

    given: Mapping[str, Argument]

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of `NEEDS`, in the order of the arguments."""
        return tuple(dict.fromkeys(need for each in self.given.values() for need in each.needs))

    @property
    def arguments(self) -> dict[str, Callable[[Any], Any]]:
        """Functions that return each argument, given a target."""
        return {name: argument.get for name, argument in self.given.items()}

    @property
    def shared(self) -> bool:
        """True if all processes must call the metric together."""
        return any(argument.shared for argument in self.given.values())

    def protocol(self, target: Any) -> dict[str, Any]:
        """Return what the arguments add to the protocol."""
        return {k: v for each in self.given.values() for k, v in each.protocol(target).items()}


def follow(unit: str) -> Argument:
    """Return the argument `progress` of a metric that counts trees or epochs."""
    return Argument(lambda s: partial(s.progress.follow, unit=unit))


# A metric's function takes what it is computed from under these names.
ARGUMENTS = {
    "codes": Argument(lambda s: s.points.codes, ("codes",), lambda s: describe_points(s.points)),
    "factors": Argument(lambda s: s.points.factors, ("factors",)),
    "test_codes": Argument(
        lambda s: s.points.test_codes,
        ("test split",),
        lambda s: {"test_points": len(s.points.test_codes)},
    ),
    "test_factors": Argument(lambda s: s.points.test_factors, ("test split",)),
    "represent": Argument(lambda s: s.represent, ("codes", "factors", "rendering"), shared=True),
    "factor_sizes": Argument(lambda s: s.factor_sizes, ("factors",)),
    "decode": Argument(lambda s: s.decode, ("axes",), lambda s: s.origin_of_axes, shared=True),
    "decode_batch_size": Argument(lambda s: BATCH),
    "sample": Argument(lambda s: s.sample, ("axes",)),
    "latents": Argument(lambda s: s.latents, ("axes",), lambda s: {"latents": s.draws.latents}),
    "directions": Argument(lambda s: s.directions, ("axes",)),
    "std": Argument(lambda s: s.stds, ("axes",)),
    "distance": Argument(lambda s: s.distance, ("generator",), shared=True),
    "features": Argument(
        lambda s: s.generated_features,
        ("generator", "images"),
        lambda s: {"images": len(s.generated_features.values)},
    ),
    "reference": Argument(
        lambda s: s.reference_features,
        ("generator", "images"),
        lambda s: {"reference_images": len(s.reference_features.values)},
    ),
    "logits": Argument(
        lambda s: s.logits,
        ("classifier",),
        lambda s: {"images": len(s.data), "split": s.split},
        shared=True,
    ),
    "labels": Argument(lambda s: s.labels, ("classifier",)),
}
# A few metrics take something else under such a name, or have a name of their own.
DECODED_AT_ONCE = {"batch_size": ARGUMENTS["decode_batch_size"]}
MOMENTS = {
    "features": replace(ARGUMENTS["features"], get=lambda s: gather_moments(s.generated_features)),
    "reference": replace(
        ARGUMENTS["reference"], get=lambda s: gather_moments(s.reference_features)
    ),
}
PEERS = {
    "codes": Argument(
        lambda s: [peer.points.codes for peer in s.peers],
        ("codes", "peers"),
        lambda s: {"points": len(s.points.codes)},
    ),
    "kl": Argument(
        lambda s: gather_divergences(s),
        protocol=lambda s: {
            "kl": "unknown" if gather_divergences(s) is None else "of the posterior",
            "across_settings": s.across_settings,
            "runs": [peer.name for peer in s.peers],
        },
    ),
}


def describe_points(points: Points) -> dict[str, Any]:
    """Return the number of training points, and of those that they were drawn from."""
    source = {} if points.drawn_from is None else {"drawn_from": points.drawn_from}
    return {"points": len(points.codes)} | source


def gather_divergences(target: Any) -> list[np.ndarray] | None:
    """Return the mean KL divergence `(K,)` of each code of each peer; None if one has none."""
    found = [peer.points.divergences for peer in target.peers]
    known = [divergences for divergences in found if divergences is not None]
    return known if len(known) == len(found) else None


def gather_moments(features: Features) -> FeatureMoments:
    """Compute moments of features, a part at a time: float64 of all would take gigabytes."""
    parts: Sequence[Any] = [
        features.values[start : start + MERGED] for start in range(0, len(features.values), MERGED)
    ]
    moments = (FeatureMoments.of(Features(np.asarray(part), features.origin)) for part in parts)
    return reduce(FeatureMoments.merge, moments)
