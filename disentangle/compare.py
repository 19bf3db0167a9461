"""`disentangle compare RUN…`: the scores of runs side by side, mean ± deviation over seeds."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from disentangle.commands import bad_input_exits, parse_arguments
from disentangle.experiments import group_by_experiment
from disentangle.parsing import new_parser
from disentangle.scoring.registry import METRICS, choose_metrics
from disentangle.scoring.report import read_report
from disentangle.scoring.summary import describe_protocol, split_values
from disentangle.tables import Cell, Format, format_table
from disentangle.training.run_folder import RunFolder

DIGITS = 4  # after the decimal point


class ScoredRun(NamedTuple):
    """A run and its scores.

    Attributes:
        folder: The run's.
        config: The run's configuration, as it stands in the file.
        step: Training step that was scored.
        scores: By the metric's name, as `scores.json` holds them.
    """

    folder: RunFolder
    config: dict[str, Any]
    step: int | None
    scores: dict[str, dict[str, Any]]


class Spread(NamedTuple):
    """A score over the runs of an experiment.

    Attributes:
        mean: Over the runs.
        std: Standard deviation, unbiased; None for one run.
        runs: How many have the score.
    """

    mean: float
    std: float | None
    runs: int


def main(arguments: Sequence[str]) -> int:
    """Compares runs; returns the exit status."""
    with bad_input_exits("compare"):
        options = parse_arguments(build_parser(), arguments)
        paths = {Path(path).resolve(): path for path in options.run}  # each run once
        runs = [read_run(RunFolder.open(path)) for path in paths.values()]
        groups = group_by_experiment(runs)
        spreads = gather_spreads(groups, options)
    kind: Format = options.format
    make = list_records if kind == "csv" else line_up
    print(format_table(*make(groups, spreads), kind, DIGITS))
    notes = list_notes(runs, {name.partition(", ")[0] for name in spreads})
    if notes:
        print("", *notes, sep="\n", file=sys.stdout if kind == "text" else sys.stderr)
    return 0


def build_parser() -> ArgumentParser:
    """The options of the command."""
    parser = new_parser(
        "compare",
        "Runs that differ in their seed and folder only are one column: the mean of their scores, "
        "± their standard deviation. The scores are those that `disentangle evaluate` wrote.",
    )
    parser.add_argument("run", type=str, nargs="+", help="Run folders.")
    parser.add_argument(
        "--metrics", type=str, help="Names and groups with commas between them; default: all."
    )
    parser.add_argument(
        "--format",
        type=Format,
        default="text",
        help="Of the table; csv has a line for each metric of each experiment.",
    )
    return parser


def read_run(folder: RunFolder) -> ScoredRun:
    """The scores of a run.

    Raises:
        ValueError: If it has none.
    """
    report = read_report(folder.scores)
    return ScoredRun(folder, folder.read_config(), report["step"], report["scores"])


def gather_spreads(
    groups: Mapping[str, Sequence[ScoredRun]], options: Namespace
) -> dict[str, dict[str, Spread]]:
    """By the name of the score and the label of the experiment.

    Raises:
        ValueError: If there is no score of the metrics that are asked for.
    """
    chosen = set(choose_metrics("all" if options.metrics is None else options.metrics)[0])
    values: dict[str, dict[str, list[float]]] = {}
    for label, runs in groups.items():
        for run in runs:
            for name, entry in run.scores.items():
                if name.partition(" (")[0] not in chosen and options.metrics is not None:
                    continue
                for score, value in split_values(name, entry).items():
                    # a score that is not defined is null in the file
                    values.setdefault(score, {}).setdefault(label, []).append(
                        np.nan if value is None else value
                    )
    if not values:
        raise ValueError(f"no run has a score of {options.metrics or 'any metric'}")
    order = {name: number for number, name in enumerate(METRICS)}
    ordered = sorted(values, key=lambda name: order.get(_metric_of(name), -1))
    return {
        name: {label: merge_values(found) for label, found in values[name].items()}
        for name in ordered
    }


def _metric_of(name: str) -> str:
    return name.partition(" (")[0].partition(", ")[0]


def merge_values(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of the scores of several runs.

    Examples:
        >>> merge_values([0.5, 1.5]).mean, merge_values([2.0]).std
        (1.0, None)
    """
    with np.errstate(invalid="ignore"):  # infinite scores have no deviation
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return Spread(float(np.mean(values)), std, len(values))


def line_up(
    groups: Mapping[str, Sequence[ScoredRun]], spreads: Mapping[str, Mapping[str, Spread]]
) -> tuple[list[str], list[list[Cell]]]:
    """A row for each score, a column for each experiment."""
    header = ["metric", *(_count(label, len(runs)) for label, runs in groups.items())]
    rows: list[list[Cell]] = [
        [name, *(_show(by_label.get(label), len(groups[label])) for label in groups)]
        for name, by_label in spreads.items()
    ]
    return header, rows


def _count(label: str, runs: int) -> str:
    return label if runs == 1 else f"{label} ({runs} runs)"


def _show(spread: Spread | None, runs: int) -> Cell:
    if spread is None:
        return None
    text = f"{spread.mean:.{DIGITS}f}"
    if spread.std is not None:
        text += f" ± {spread.std:.{DIGITS}f}"
    return text if spread.runs == runs else f"{text} ({spread.runs} of {runs})"


def list_records(
    groups: Mapping[str, Sequence[ScoredRun]], spreads: Mapping[str, Mapping[str, Spread]]
) -> tuple[list[str], list[list[Cell]]]:
    """A row for each score of each experiment."""
    rows: list[list[Cell]] = [
        [name, label, by_label[label].mean, by_label[label].std, by_label[label].runs]
        for name, by_label in spreads.items()
        for label in groups
        if label in by_label
    ]
    return ["metric", "experiment", "mean", "std", "runs"], rows


def list_notes(runs: Sequence[ScoredRun], names: set[str]) -> list[str]:
    """What makes the scores less comparable than they look."""
    notes = []
    for name in sorted(names):
        entries = [run.scores[name] for run in runs if name in run.scores]
        protocols = {describe_protocol(_essence(entry)) for entry in entries}
        if len(protocols) > 1:
            notes.append(f"{name}: protocols differ: {'; '.join(sorted(protocols))}")
        if len({str(entry["protocol"].get("runs")) for entry in entries}) > 1:
            notes.append(f"{name}: scored among different runs, and only comparable within each")
        caveats = (entry["details"].get("caveat") for entry in entries)
        if caveat := next(filter(None, caveats), None):
            notes.append(f"{name}: {caveat}")
    steps = sorted({run.step for run in runs if run.step is not None})
    if len(steps) > 1:
        notes.append(f"training steps differ: {', '.join(map(str, steps))}")
    return notes


def _essence(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol without the names of runs, which are told apart, and without seeds."""
    return {k: value for k, value in entry["protocol"].items() if k not in ("runs", "seeds")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
