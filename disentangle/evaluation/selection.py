"""Which metrics of a target can be computed, and which targets go together."""

from collections.abc import Mapping, Sequence
from typing import Any

from disentangle.evaluation.feature_sets import FeatureOptions, load_distance, load_network
from disentangle.evaluation.registry import METRICS, lacking
from disentangle.evaluation.runner import Job
from disentangle.metrics.dci import FEWEST_POINTS


def needs_data(names: Sequence[str], *, encodes: bool) -> bool:
    """Whether any of the metrics looks at images of the data set."""
    needs = {need for name in names for need in METRICS[name].inputs.needs}
    return "images" in needs or (encodes and "codes" in needs)


def introduce(targets: Sequence[Any], *, across_settings: bool) -> None:
    """Makes targets with the same data set and as many axes each other's peers.

    Args:
        targets: Of runs; those of one experiment, unless `across_settings`.
        across_settings: What they are told of each other.
    """
    for one in targets:
        one.across_settings = across_settings
        if one.data is None or "codes" not in one.offers:
            continue
        one.peers = [
            other
            for other in targets
            if other.data is one.data and len(other.model.axes) == len(one.model.axes)
        ]
        if len(one.peers) > 1:
            one.offers.add("peers")


def prefer_exact(
    job: Job, names: Sequence[str], protocols: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Names of metrics with `dci` in place of `histogram_dci` where there are few points.

    Args:
        job: Gets a note of it.
        names: Names of the metrics that were asked for.
        protocols: Options of each metric.

    Raises:
        ValueError: If options were given for the metric that is replaced.
    """
    approximation = "histogram_dci"
    needed = METRICS[approximation].inputs.needs
    if approximation not in names or not job.target.offers.issuperset(needed):
        return list(names)
    count = job.target.point_count
    if count >= FEWEST_POINTS:
        return list(names)
    if protocols[approximation] != METRICS[approximation].defaults:
        raise ValueError(
            f"options of {approximation} need {FEWEST_POINTS:,} training points, below which dci "
            f"takes its place, got {count}"
        )
    job.left_out[approximation] = f"as dci takes its place below {FEWEST_POINTS:,} training points"
    return [name for name in METRICS if name in {*names, "dci"} - {approximation}]


def choose(job: Job, names: Sequence[str], *, named: bool) -> None:
    """Notes which metrics can be computed, and of those that are given up, why.

    Args:
        job: Gets the names.
        names: Of the metrics that were asked for.
        named: Whether by their own names: then all must be computed.

    Raises:
        ValueError: If none can, or one cannot that must.
        FileNotFoundError: If it needs a file of weights that is missing.
    """
    if not named:  # a group of metrics that are of no use here needs no mention
        classifies = "classifier" in job.target.offers
        names = [n for n in names if (METRICS[n].group == "classification") == classifies]
    for name in names:
        need = lacking(name, job.target.offers)
        if need is not None and named:
            raise ValueError(f"{name} of {job.target.name} needs {need}")
        reason = None if need is None else f"for want of {need}"
        try:
            if reason is None:
                load_networks(name, job.target.draws.features)
        except FileNotFoundError as error:
            if named:
                raise
            reason = f"as {error}"
        if reason is None:
            job.names.append(name)
        else:
            job.left_out[name] = reason
    if not job.names:
        reasons = "; ".join(dict.fromkeys(job.left_out.values())) or "as none is of its kind"
        raise ValueError(f"no metric of {job.target.name} can be computed, {reasons}")


def load_networks(name: str, options: FeatureOptions) -> None:
    """Loads what a metric looks at images through, so that a missing file is found now."""
    if "distance" in METRICS[name].inputs.arguments:
        load_distance(options)
    if "images" in METRICS[name].inputs.needs:
        load_network(options)
