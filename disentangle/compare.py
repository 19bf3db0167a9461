"""`disentangle compare RUN…`: the scores of runs side by side, mean ± deviation over seeds."""

import math
import shutil
import sys
from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentParser

from disentangle.cli.common import bad_input_exits
from disentangle.config.arguments import new_parser, parse_arguments
from disentangle.evaluation.comparison import DIGITS, Spread, gather_spreads, line_up, list_notes
from disentangle.output.tables import Cell, Format, format_table
from disentangle.output.text import escape_control_characters
from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.run import Run, open_runs


def main(arguments: Sequence[str]) -> int:
    """Compare runs; return the exit status."""
    with bad_input_exits("compare"):
        options = parse_arguments(build_parser(), arguments)
        runs = open_runs(options.run)
        for run in runs:
            run.check_evaluated()
        groups = group_by_experiment(runs)
        spreads = gather_spreads(groups, options.metrics)
    kind: Format = options.format
    make = list_records if kind == "csv" else line_up
    # What is piped keeps its lines whole, for `grep` and the like.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(format_table(*make(groups, spreads), kind, DIGITS, width))
    notes = list_notes(runs, {name.partition(", ")[0] for name in spreads})
    if notes:
        stream = sys.stdout if kind == "text" else sys.stderr
        print("", *map(escape_control_characters, notes), sep="\n", file=stream)
    return 0


def build_parser() -> ArgumentParser:
    """Build the parser of the command."""
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
        help="Format of the table; csv has a line for each metric of each experiment.",
    )
    return parser


def list_records(
    groups: Mapping[str, Sequence[Run]], spreads: Mapping[str, Mapping[str, Spread]]
) -> tuple[list[str], list[list[Cell]]]:
    """Return a row for each score of each experiment; an undefined number is an empty cell."""
    rows: list[list[Cell]] = [
        [name, label, *(None if _is_nan(value) else value for value in by_label[label])]
        for name, by_label in spreads.items()
        for label in groups
        if label in by_label
    ]
    return ["metric", "experiment", *Spread._fields], rows


def _is_nan(value: float | None) -> bool:
    return value is not None and math.isnan(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
