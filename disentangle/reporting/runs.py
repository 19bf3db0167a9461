"""What is known of the runs of a report, and the table of them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from disentangle.config import flatten
from disentangle.curves import name_curve
from disentangle.evaluation.comparison import ScoredRun
from disentangle.evaluation.scores_file import read_report
from disentangle.output.tables import Cell
from disentangle.reporting.document import Section, Table
from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.metrics_log import read_lines
from disentangle.runs.run_folder import RunFolder


class ReportedRun(NamedTuple):
    """A run and what it has written.

    Attributes:
        folder: The run's.
        name: What it is called in the report.
        config: The run's configuration, as it stands in the file.
        scored: Its scores, none if it was not evaluated.
        lines: Of its log, none if it was not trained.
    """

    folder: RunFolder
    name: str
    config: dict[str, Any]
    scored: ScoredRun
    lines: list[dict[str, Any]]


Groups = Mapping[str, Sequence[ReportedRun]]  # by the label of the experiment


def read_runs(folders: Sequence[RunFolder]) -> list[ReportedRun]:
    """What runs have written so far.

    Raises:
        ValueError: If a `scores.json` holds something else.
    """
    return [read_run(folder, name) for folder, name in zip(folders, _shorten(folders), strict=True)]


def read_run(folder: RunFolder, name: str) -> ReportedRun:
    """What a run has written so far.

    Raises:
        ValueError: If its `scores.json` holds something else.
    """
    config = folder.read_config()
    scored = ScoredRun(folder, config, None, {})
    if folder.scores.is_file():
        report = read_report(folder.scores)
        scored = ScoredRun(folder, config, report["step"], report["scores"])
    lines = read_lines(folder.metrics) if folder.metrics.is_file() else []
    return ReportedRun(folder, name, config, scored, lines)


def _shorten(folders: Sequence[RunFolder]) -> list[str]:
    """The folders without what all are in; of a single run as it was given."""
    if len(folders) == 1:
        return [str(folders[0].path)]
    paths = [folder.path.resolve() for folder in folders]
    shared = os.path.commonpath([path.parent for path in paths])
    return [str(path.relative_to(shared)) for path in paths]


def group_reported(runs: Sequence[ReportedRun]) -> dict[str, list[ReportedRun]]:
    """Runs of the same experiment, by its techniques, with a run's name if these do not tell."""
    return group_by_experiment(runs, lambda run: run.name)


def name_curves(groups: Groups) -> list[str]:
    """The labels of the curves of all experiments, by which each has its looks in all figures."""
    return [name_curve(label, len(runs)) for label, runs in groups.items()]


def list_runs(groups: Groups) -> Section:
    """The runs, with how far they are."""
    rows: list[list[Cell]] = []
    for label, runs in groups.items():
        for run in runs:
            options = flatten(run.config)
            kind = [options.get(name) for name in ("task", "model.name", "seed")]
            rows.append([run.name, label, *kind, _count_steps(run), _count_scores(run)])
    header = ["run", "experiment", "task", "model", "seed", "trained steps", "scores"]
    return Section("Runs", [Table(header, rows)])


def _count_steps(run: ReportedRun) -> str:
    made = run.lines[-1]["step"] if run.lines else 0
    planned = (run.config.get("training") or {}).get("steps")
    return f"{made} of {planned}" if planned is not None else str(made)


def _count_scores(run: ReportedRun) -> str:
    if not run.scored.scores:
        return "not evaluated"
    step = "" if run.scored.step is None else f", of step {run.scored.step}"
    return f"{len(run.scored.scores)}{step}"
