"""Scores of the runs of a report over seeds, and how they were computed."""

from collections.abc import Sequence
from itertools import chain

from disentangle.evaluation.comparison import gather_spreads, line_up, list_notes
from disentangle.evaluation.summary import describe_protocol
from disentangle.reporting.document import Block, Points, Section, Table, Text
from disentangle.reporting.runs import Groups
from disentangle.runs.run import Run

TITLE = "Scores"


def list_scores(groups: Groups) -> Section:
    """List the scores, a column for each experiment, with notes, protocols and versions."""
    every = list(chain.from_iterable(groups.values()))
    missing = [run.name for run in every if not run.scores]
    if len(missing) == len(every):
        return Section(TITLE, [Text("No run has been evaluated: disentangle evaluate does so.")])
    spreads = gather_spreads(groups)
    blocks: list[Block] = [Table(*line_up(groups, spreads))]
    if len(every) > len(groups):
        blocks.insert(0, Text("Mean ± standard deviation over the runs of an experiment."))
    notes = [f"{name} has not been evaluated" for name in missing]
    notes += list_notes(every, {name.partition(", ")[0] for name in spreads})
    if notes:
        blocks.append(Points(notes))
    return Section(TITLE, [*blocks, *_list_protocols(every)])


def _list_protocols(runs: Sequence[Run]) -> list[Block]:
    """List the protocol of each metric in the first run that has it, and all versions."""
    entries = {name: entry for run in reversed(runs) for name, entry in run.scores.items()}
    names = dict.fromkeys(name for run in runs for name in run.scores)
    rows = [
        [name, describe_protocol(entries[name].protocol), "" if seed is None else str(seed)]
        for name, seed in ((name, entries[name].seed) for name in names)
    ]
    versions = {
        ", ".join(f"{library} {number}" for library, number in entry.versions.items())
        for run in runs
        for entry in run.scores.values()
    }
    computed = [Text(f"Computed with {found}.") for found in sorted(versions) if found]
    return [Table(["metric", "protocol", "seed"], rows, "Protocols"), *computed]
