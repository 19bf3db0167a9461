"""Every metric by its name, with its group and whether it is computed by default."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from disentangle.config.choices import current_name
from disentangle.evaluation.inputs import (
    ARGUMENTS,
    DECODED_AT_ONCE,
    MOMENTS,
    NEEDS,
    PEERS,
    Argument,
    Inputs,
    follow,
)
from disentangle.evaluation.processes import BATCH
from disentangle.metrics import (
    accuracy,
    activeness,
    beta_vae_score,
    dci,
    explicitness,
    factor_vae_score,
    frechet_inception_distance,
    gaussian_total_correlation,
    histogram_dci,
    infomec,
    irs,
    kernel_inception_distance,
    mig,
    modularity,
    mutual_information_score,
    perceptual_path_length,
    sap,
    udr,
    variation_predictability,
    wasserstein_correlation,
)

GROUPS = ("supervised", "unsupervised", "generator", "classification")
NOT_PROTOCOL = {"seed", "workers"}  # arguments that no protocol names


@dataclass(frozen=True)
class Metric:
    """Entry of the registry of metrics.

    Attributes:
        function: Function that computes it.
        group: One of `GROUPS`.
        quick: Whether it is computed by default: it takes seconds and no file of weights.
        special: Arguments in place of those of `ARGUMENTS`, or beside them.
        usual: Returns the options that a target decides where they are None.
        values: Further fields of its result that tables show.
        images: Returns the number of images it encodes or decodes, given a target and the protocol.
        pick: Returns the score, given the result and the target; by default `result.score`.
    """

    function: Callable[..., Any]
    group: str
    quick: bool = True
    special: Mapping[str, Argument] = field(default_factory=dict)
    usual: Callable[[Any], Mapping[str, Any]] = field(default=lambda target: {})
    values: tuple[str, ...] = ()
    images: Callable[[Any, Mapping[str, Any]], int] | None = None
    pick: Callable[[Any, Any], float] = field(default=lambda result, target: result.score)

    @cached_property
    def inputs(self) -> Inputs:
        """Those of the function's arguments that a target provides."""
        known = {**ARGUMENTS, **self.special}
        names = inspect.signature(self.function).parameters.keys()
        return Inputs({name: known[name] for name in names if name in known})

    @property
    def not_options(self) -> set[str]:
        """Arguments of the function that are not chosen on the command line."""
        return NOT_PROTOCOL | self.inputs.arguments.keys()

    @property
    def defaults(self) -> dict[str, Any]:
        """Default values of the options."""
        parameters = inspect.signature(self.function).parameters
        return {k: p.default for k, p in parameters.items() if k not in self.not_options}

    def settle(self, protocol: Mapping[str, Any], target: Any) -> dict[str, Any]:
        """Return the options, with the target's choice in place of None."""
        usual = self.usual(target)
        return {k: usual.get(k) if value is None else value for k, value in protocol.items()}

    def call(self, arguments: Mapping[str, Any], protocol: Mapping[str, Any], seed: int) -> Any:
        """Compute the metric."""
        random = "seed" in inspect.signature(self.function).parameters
        return self.function(**arguments, **protocol, **({"seed": seed} if random else {}))


def repeat_first(images: int) -> int:
    """Return the number of images with those of the first batch, which is decoded twice."""
    return images + min(images, BATCH)


METRICS: dict[str, Metric] = {
    "mig": Metric(mig, "supervised"),
    "sap": Metric(sap, "supervised"),
    "modularity": Metric(modularity, "supervised"),
    "explicitness": Metric(explicitness, "supervised"),
    "irs": Metric(irs, "supervised"),
    "infomec": Metric(infomec, "supervised", values=("infoe", "infoc")),
    "histogram_dci": Metric(
        histogram_dci, "supervised", values=("completeness", "informativeness")
    ),
    "dci": Metric(
        dci,
        "supervised",
        quick=False,
        special={"progress": follow("tree")},
        values=("completeness", "informativeness"),
    ),
    "factor_vae_score": Metric(
        factor_vae_score,
        "supervised",
        images=lambda s, p: (
            (p["train_points"] + p["test_points"]) * p["batch_size"] + p["variance_points"]
        ),
    ),
    "beta_vae_score": Metric(
        beta_vae_score,
        "supervised",
        quick=False,
        images=lambda s, p: 2 * (p["train_points"] + p["test_points"]) * p["batch_size"],
    ),
    "gaussian_total_correlation": Metric(gaussian_total_correlation, "unsupervised"),
    "wasserstein_correlation": Metric(
        wasserstein_correlation, "unsupervised", values=("normalised",)
    ),
    "mutual_information_score": Metric(mutual_information_score, "unsupervised"),
    "udr": Metric(
        udr,
        "unsupervised",
        special=PEERS,
        pick=lambda result, s: result.per_run[s.peers.index(s)],
    ),
    "activeness": Metric(
        activeness,
        "generator",
        special=DECODED_AT_ONCE,
        images=lambda s, p: repeat_first(len(s.model.axes) * s.draws.latents * len(p["values"])),
    ),
    "variation_predictability": Metric(
        variation_predictability,
        "generator",
        quick=False,
        special={"progress": follow("epoch")},
        usual=lambda s: {"coordinates": s.coordinates},
        values=("std",),
        images=lambda s, p: repeat_first(2 * p["pairs"] * len(p["seeds"])),
    ),
    "perceptual_path_length": Metric(
        perceptual_path_length,
        "generator",
        quick=False,
        special=DECODED_AT_ONCE,
        images=lambda s, p: repeat_first(2 * p["samples"]),
    ),
    "frechet_inception_distance": Metric(
        frechet_inception_distance,
        "generator",
        quick=False,
        special=MOMENTS,
        images=lambda s, p: s.draws.features.images + s.reference_count,
    ),
    "kernel_inception_distance": Metric(
        kernel_inception_distance,
        "generator",
        quick=False,
        values=("std",),
        images=lambda s, p: s.draws.features.images + s.reference_count,
    ),
    "accuracy": Metric(accuracy, "classification", values=("top_5", "cross_entropy")),
}


def choose_metrics(words: str | None) -> tuple[list[str], bool]:
    """Return the names of metrics in the registry's order, and whether each was named itself.

    Args:
        words: Names of metrics and groups with commas between them; `all`; None for the quick ones.

    Raises:
        ValueError: If a word is neither.

    Examples:
        >>> choose_metrics("sap,mig")
        (['mig', 'sap'], True)
        >>> choose_metrics("unsupervised")[0][:2]
        ['gaussian_total_correlation', 'wasserstein_correlation']
    """
    if words is None:
        return [name for name, metric in METRICS.items() if metric.quick], False
    chosen = set()
    given = [current_name(word.strip()) for word in words.split(",")]
    for word in given:
        members = {n for n, m in METRICS.items() if word in ("all", n, m.group)}
        if not members:
            known = ", ".join(("all", *GROUPS, *METRICS))
            raise ValueError(f"--metrics has no choice {word!r}; choose from: {known}")
        chosen |= members
    return [name for name in METRICS if name in chosen], set(given) <= METRICS.keys()


def lacking(name: str, offers: Iterable[str]) -> str | None:
    """Name what a metric needs and a target does not offer; None if it can be computed.

    Examples:
        >>> lacking("mig", {"codes"})
        'a data set with known factors'
    """
    missing = [need for need in METRICS[name].inputs.needs if need not in set(offers)]
    return NEEDS[missing[0]] if missing else None
