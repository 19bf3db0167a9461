"""`disentangle evaluate RUN…`: scores of models, or of codes that came from anywhere.

Scores go to the terminal as a table and, with all that is behind them, to `scores.json`.
"""

import sys
from collections.abc import Sequence

from tqdm import tqdm

from disentangle.cli.common import bad_input_exits
from disentangle.cli.options import COMMAND_LINE_ONLY, build_parser, read_request
from disentangle.config.arguments import parse_arguments
from disentangle.evaluation.planning import plan
from disentangle.evaluation.processes import Processes, leads_its_machine, silence
from disentangle.evaluation.request import Request
from disentangle.evaluation.runner import Job
from disentangle.evaluation.selection import choose
from disentangle.evaluation.summary import format_axes, format_jobs, list_notes
from disentangle.output.tables import Format
from disentangle.output.text import escape_control_characters
from disentangle.runs.scores_file import FIT


def main(arguments: Sequence[str]) -> int:
    """Score runs, or codes; return the exit status: 1 if a metric could not be computed."""
    with silence(unless=leads_its_machine()), bad_input_exits("evaluate"):
        processes = Processes()
    with silence(unless=processes.is_first):
        with bad_input_exits("evaluate"):
            options = parse_arguments(build_parser(), arguments, COMMAND_LINE_ONLY)
            request = read_request(options, processes)
            jobs = plan(request, processes)
            for job in jobs:
                choose(job, request)
        compute(jobs, request, processes)
        report(jobs, options.format)
    processes.leave()
    return int(any(job.failed for job in jobs))


def compute(jobs: Sequence[Job], request: Request, processes: Processes) -> None:
    """Compute the scores of all jobs, and write each as soon as it is known."""
    count = sum(len(job.names) for job in jobs)
    with tqdm(total=count, desc="metrics", disable=None, leave=False) as bar:
        for job in jobs:
            job.prepare(request.protocols[FIT])
        for job in jobs:
            job.compute(request.protocols, processes, bar)


def report(jobs: Sequence[Job], kind: Format) -> None:
    """Print the table, and notes beside it: on the standard error, unless the table is text."""
    print(format_jobs(jobs, kind))
    aside = sys.stdout if kind == "text" else sys.stderr
    for job in jobs:
        mark = escape_control_characters(f"{job.target.name}: ") if len(jobs) > 1 else ""
        if kind == "text" and (axes := format_axes(job)):
            print(f"\n{mark}\n{axes}" if mark else f"\n{axes}")
        lines = [mark + note for note in list_notes(job)]
        if job.folder is not None:
            lines.append(f"scores: {job.folder.scores}")
            lines += [f"plot:   {file}" for file in job.plots]
        print("", *map(escape_control_characters, lines), sep="\n", file=aside)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
