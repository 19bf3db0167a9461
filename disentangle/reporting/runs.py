"""The runs of a report, and the table of them."""

import os
from collections.abc import Mapping, Sequence

from disentangle.config import flatten
from disentangle.curves import name_curve
from disentangle.output.tables import Cell
from disentangle.reporting.document import Section, Table
from disentangle.runs.run import Run

Groups = Mapping[str, Sequence[Run]]  # by the label of the experiment


def shorten_names(runs: Sequence[Run]) -> None:
    """Name runs by their folders without the part that all share; a single run keeps its name."""
    if len(runs) > 1:
        paths = [run.folder.path.resolve() for run in runs]
        shared = os.path.commonpath([path.parent for path in paths])
        for run, path in zip(runs, paths, strict=True):
            run.name = str(path.relative_to(shared))


def name_curves(groups: Groups) -> list[str]:
    """Return the labels of the curves of all experiments, which have the same order everywhere."""
    return [name_curve(label, len(runs)) for label, runs in groups.items()]


def list_runs(groups: Groups) -> Section:
    """List the runs, with their progress."""
    rows: list[list[Cell]] = []
    for label, runs in groups.items():
        for run in runs:
            options = flatten(run.raw_config)
            kind = [options.get(name) for name in ("task", "model.name", "seed")]
            rows.append([run.name, label, *kind, _count_steps(run), _count_scores(run)])
    header = ["run", "experiment", "task", "model", "seed", "trained steps", "scores"]
    return Section("Runs", [Table(header, rows)])


def _count_steps(run: Run) -> str:
    made = run.metrics[-1]["step"] if run.metrics else 0
    planned = (run.raw_config.get("training") or {}).get("steps")
    return f"{made} of {planned}" if planned is not None else str(made)


def _count_scores(run: Run) -> str:
    if not run.scores:
        return "not evaluated"
    step = "" if run.step is None else f", of step {run.step}"
    return f"{len(run.scores)}{step}"
