"""The choice of the metrics that can be computed of a target."""

from disentangle.evaluation.feature_sets import load_distance, load_network
from disentangle.evaluation.registry import METRICS, lacking
from disentangle.evaluation.rehearsal import check_options
from disentangle.evaluation.representations import Target
from disentangle.evaluation.request import Request
from disentangle.evaluation.runner import Job
from disentangle.metrics.dci import FEWEST_POINTS


def choose(job: Job, request: Request) -> None:
    """Note which metrics can be computed of a job's target, and why others cannot.

    Args:
        job: Job that is given the names.
        request: Metrics to compute.

    Raises:
        ValueError: If none can be computed, or one cannot that must, or its options are bad.
    """
    names = _prefer_exact(job, request)
    if not request.named:  # a group of metrics for other targets needs no mention
        classifies = "classifier" in job.target.offers
        names = [n for n in names if (METRICS[n].group == "classification") == classifies]
    for name in names:
        reason = _reason_against(name, job.target)
        if reason is None:
            check_options(name, job.target, request.protocols[name])
            job.names.append(name)
        elif request.named:
            raise ValueError(f"{name} of {job.target.name} {reason}")
        else:
            job.left_out[name] = reason
    if not job.names:
        reasons = "; ".join(dict.fromkeys(job.left_out.values())) or "none is of its kind"
        raise ValueError(f"no metric of {job.target.name} can be computed: {reasons}")


def _prefer_exact(job: Job, request: Request) -> list[str]:
    """Return the names with `dci` in place of `histogram_dci` where there are few points."""
    approximation = "histogram_dci"
    needed = METRICS[approximation].inputs.needs
    if approximation not in request.names or not job.target.offers.issuperset(needed):
        return list(request.names)
    count = job.target.point_count
    if count >= FEWEST_POINTS:
        return list(request.names)
    if request.protocols[approximation] != METRICS[approximation].defaults:
        raise ValueError(
            f"options of {approximation} need {FEWEST_POINTS:,} training points, below which dci "
            f"takes its place, got {count}"
        )
    job.left_out[approximation] = f"dci takes its place below {FEWEST_POINTS:,} training points"
    return [name for name in METRICS if name in {*request.names, "dci"} - {approximation}]


def _reason_against(name: str, target: Target) -> str | None:
    """Return why a metric cannot be computed of a target; None if it can."""
    need = lacking(name, target.offers)
    if need is not None:
        return f"needs {need}"
    try:  # loading finds a missing file before the work starts
        if "distance" in METRICS[name].inputs.arguments:
            load_distance(target.draws.features)
        if "images" in METRICS[name].inputs.needs:
            load_network(target.draws.features)
    except FileNotFoundError as error:
        return f"needs a file of weights: {error}"
    return None
