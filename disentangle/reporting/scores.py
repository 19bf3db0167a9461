"""The scores of the runs of a report, over seeds, and how they were computed."""

from disentangle.evaluation.comparison import gather_spreads, line_up, list_notes
from disentangle.evaluation.summary import describe_protocol
from disentangle.reporting.document import Block, Points, Section, Table, Text
from disentangle.reporting.runs import Groups

TITLE = "Scores"


def list_scores(groups: Groups) -> Section:
    """A column for each experiment, the protocols and versions, and what to be wary of."""
    scored = {label: [run.scored for run in runs] for label, runs in groups.items()}
    every = [run for runs in scored.values() for run in runs]
    missing = [run.name for runs in groups.values() for run in runs if not run.scored.scores]
    if len(missing) == len(every):
        return Section(TITLE, [Text("No run has been evaluated: disentangle evaluate does so.")])
    spreads = gather_spreads(scored)
    blocks: list[Block] = [Table(*line_up(scored, spreads))]
    if len(every) > len(groups):
        blocks.insert(0, Text("Mean ± standard deviation over the runs of an experiment."))
    notes = [f"{name} has not been evaluated" for name in missing]
    notes += list_notes(every, {name.partition(", ")[0] for name in spreads})
    if notes:
        blocks.append(Points(notes))
    return Section(TITLE, [*blocks, *_list_protocols(groups)])


def _list_protocols(groups: Groups) -> list[Block]:
    """How each metric was computed of the first run that has it, and with which versions."""
    runs = [run.scored for group in groups.values() for run in group]
    entries = {name: entry for run in reversed(runs) for name, entry in run.scores.items()}
    names = dict.fromkeys(name for run in runs for name in run.scores)
    rows = [
        [name, describe_protocol(entries[name]["protocol"]), str(entries[name].get("seed", ""))]
        for name in names
    ]
    versions = {
        ", ".join(f"{library} {number}" for library, number in entry.get("versions", {}).items())
        for run in runs
        for entry in run.scores.values()
    }
    computed = [Text(f"Computed with {found}.") for found in sorted(versions) if found]
    return [Table(["metric", "protocol", "seed"], rows, "Protocols"), *computed]
