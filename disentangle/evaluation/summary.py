"""Scores as the rows of a table, and the activeness of each axis."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from disentangle.evaluation.generator_target import GeneratorTarget
from disentangle.evaluation.heat_maps import MOST_CODES, is_too_tall
from disentangle.evaluation.registry import METRICS
from disentangle.evaluation.runner import Job
from disentangle.losses.active_units import ACTIVE_VARIANCE
from disentangle.output.tables import Cell, Format, format_table
from disentangle.runs.scores_file import Score, metric_of

BAR = 24  # characters of the longest bar
TERSE = 60  # characters of a protocol in the table of a terminal


def split_values(name: str, score: Score) -> dict[str, float | None]:
    """Return the numbers that tables show of a score, by the names that they have there.

    Args:
        name: Name of the metric, perhaps with a suffix in parentheses.
        score: The score.

    Raises:
        ValueError: If a detail that tables show is not a number.

    Examples:
        >>> details = {"completeness": 0.25, "informativeness": None}
        >>> split_values("dci (fitted encoder)", Score(score=0.5, protocol={}, details=details))
        {'dci (fitted encoder)': 0.5, 'dci (fitted encoder), completeness': 0.25,
         'dci (fitted encoder), informativeness': None}
    """
    metric = METRICS.get(metric_of(name))
    further = metric.values if metric is not None else ()
    return {name: score.score} | {f"{name}, {key}": score.number(key) for key in further}


def format_jobs(jobs: Sequence[Job], kind: Format) -> str:
    """Return all scores in one table; with several targets, the first column names the target."""
    rows = [
        [job.target.name, *row]
        for job in jobs
        for name, entry in job.scores.items()
        for row in _rows(name, entry, TERSE if kind == "text" else None)
    ]
    header = ["run", "metric", "score", "seconds", "protocol"]
    if len(jobs) == 1:
        header, rows = header[1:], [row[1:] for row in rows]
    return format_table(header, rows, kind)


def _rows(name: str, score: Score, width: int | None) -> Iterable[list[Cell]]:
    protocol = describe_protocol(score.protocol)
    if width is not None and len(protocol) > width:
        protocol = protocol[: width - 1] + "…"
    # a second to the tenth: what follows depends on what else the machine does
    seconds: list[Cell] = [f"{score.seconds:.1f}", protocol]
    for label, value in split_values(name, score).items():
        yield [label, None if value is None else float(value), *seconds]
        seconds = [None, None]


def describe_protocol(protocol: Mapping[str, Any]) -> str:
    """Return the protocol on one line.

    Examples:
        >>> describe_protocol({"points": 100, "values": [-2.0, 2.0], "runs": ["a", "b"]})
        'points 100, values [-2.0, 2.0], runs [a, b]'
    """

    def show(value: Any) -> str:
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(show, value))}]"
        return str(value)

    return ", ".join(f"{key} {show(value)}" for key, value in protocol.items())


def list_notes(job: Job) -> list[str]:
    """Return notes that a reader of the scores must know besides."""
    notes: dict[str, list[str]] = {}
    for name, reason in job.left_out.items():
        notes.setdefault(f"not computed: {reason}", []).append(name)
    for name, reason in job.failed.items():
        notes.setdefault(f"could not be computed: {reason}", []).append(name)
    for name, entry in job.scores.items():
        if caveat := entry.details.get("caveat"):
            notes.setdefault(caveat, []).append(name)
        if entry.too_large:
            note = f"too large to be stored: {', '.join(entry.too_large)}"
            notes.setdefault(note, []).append(name)
        if job.folder is not None and is_too_tall(metric_of(name), entry.details):
            note = f"not drawn, as there are more than {MOST_CODES} codes"
            notes.setdefault(note, []).append(name)
        if excluded := entry.details.get("excluded_factors"):
            names = ", ".join(job.target.points.factor_names[f] for f in excluded)
            notes.setdefault(f"left out, as it has one value: {names}", []).append(name)
    lines = [f"{note} ({', '.join(names)})" for note, names in notes.items()]
    if job.active is not None:
        count, codes = job.active
        meaning = f"variance of the posterior mean above {ACTIVE_VARIANCE}"
        lines.insert(0, f"active codes: {count or 'none'} of {codes} ({meaning})")
    return lines


def format_axes(job: Job) -> str | None:
    """Return the activeness of each axis with bars, or None if it was not computed."""
    found = [entry for name, entry in job.scores.items() if name.startswith("activeness")]
    if not found or not isinstance(job.target, GeneratorTarget):
        return None
    per_axis = found[0].details["per_axis"]
    most = max(per_axis.max(), np.finfo(float).tiny)
    rows: list[list[Cell]] = [
        [f"{axis.group}, {axis.name}", float(value), "█" * round(BAR * value / most)]
        for axis, value in zip(job.target.model.axes, per_axis, strict=True)
    ]
    return format_table(["axis", "activeness", ""], rows, digits=5)
