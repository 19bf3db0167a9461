"""`disentangle evaluate RUN…`: scores of models, or of codes that came from anywhere.

Scores go to the terminal as a table and, with all that is behind them, to `scores.json`.
"""

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace
from tqdm import tqdm

from disentangle.commands import bad_input_exits, parse_arguments, pick_device, read_run
from disentangle.metrics import fit_encoder
from disentangle.models import Encoder
from disentangle.parsing import new_parser
from disentangle.scoring.feature_sets import FeatureOptions, load_distance, load_network
from disentangle.scoring.job import FIT, Job
from disentangle.scoring.points import read_points
from disentangle.scoring.processes import Processes
from disentangle.scoring.registry import GROUPS, METRICS, choose_metrics, lacking
from disentangle.scoring.rehearsal import check_options
from disentangle.scoring.report import read_report
from disentangle.scoring.subject import Draws, RunSubject, Subject
from disentangle.scoring.summary import format_axes, format_jobs, list_notes
from disentangle.tables import Format
from disentangle.training.run_folder import RunFolder

ENCODER_ARGUMENTS: set[str | int] = {"decode", "sample_latents", "directions", "seed", "device"}


def main(arguments: Sequence[str]) -> int:
    """Scores runs, or codes; returns the exit status: 1 if a metric could not be computed."""
    processes = Processes()
    with processes.only_first_speaks():
        with bad_input_exits("evaluate"):
            options = parse_arguments(build_parser(), arguments)
            protocols = read_protocols(options)
            jobs = plan(options, protocols, processes)
        count = sum(len(job.names) for job in jobs)
        with tqdm(total=count, desc="metrics", disable=None, leave=False) as bar:
            for job in jobs:
                job.compute(protocols, processes, bar)
                if processes.is_first:
                    job.write()
        report(jobs, options.format)
    return int(any(job.failed for job in jobs))


def report(jobs: Sequence[Job], kind: Format) -> None:
    """Prints the table; what is not part of it goes to the standard error, unless it is text."""
    print(format_jobs(jobs, kind))
    aside = sys.stdout if kind == "text" else sys.stderr
    for job in jobs:
        mark = f"{job.subject.name}: " if len(jobs) > 1 else ""
        if kind == "text" and (axes := format_axes(job)):
            print(f"\n{mark}\n{axes}" if mark else f"\n{axes}")
        lines = [mark + note for note in list_notes(job)]
        if job.folder is not None:
            lines.append(f"scores: {job.folder.scores}")
            lines += [f"plot:   {file}" for file in job.plots]
        print("", *lines, sep="\n", file=aside)


def build_parser() -> ArgumentParser:
    """The options of the command; those of a metric are the arguments of its function."""
    parser = new_parser("evaluate", _describe_metrics())
    parser.add_argument("run", type=str, nargs="*", help="Run folders.")
    parser.add_argument(
        "--codes",
        type=str,
        help="In place of runs, a .npz file with the arrays codes (N, K) and factors (N, F), and "
        "optionally test_codes, test_factors and factor_names.",
    )
    parser.add_argument(
        "--metrics", type=str, help="Names and groups with commas between them, or `all`."
    )
    parser.add_argument("--format", type=Format, default="text", help="Of the printed table.")
    parser.add_argument(
        "--output", type=str, help="With --codes: the folder for scores.json and plots."
    )
    parser.add_argument(
        "--encoder",
        type=Literal["own", "fit"],
        default="own",
        help="`fit` fits an encoder to the generator's own images, so that a model without one can "
        "be scored against the factors, and reports how well it reads each latent.",
    )
    parser.add_function_arguments(fit_encoder, FIT, skip=ENCODER_ARGUMENTS)
    parser.add_argument("--seed", type=int, default=0, help="Of every random draw of the command.")
    parser.add_argument("--device", type=str, help="Default: a GPU if there is one.")
    # --mig.points was its name when MIG was the only metric of points
    parser.add_argument(
        "--points", "--mig.points", type=int, default=10_000, help="Points for metrics of codes."
    )
    parser.add_argument(
        "--test_points", type=int, default=5_000, help="Further points, to test classifiers on."
    )
    parser.add_class_arguments(FeatureOptions, "features")
    parser.add_argument(
        "--activeness.latents", type=int, default=300, help="Latents around which an axis is moved."
    )
    for name, metric in METRICS.items():
        known = inspect.signature(metric.function).parameters.keys()
        given: set[str | int] = {key for key in known if key in metric.not_options}
        parser.add_function_arguments(metric.function, name, skip=given)
    return parser


def _describe_metrics() -> str:
    lists = (
        f"{group}: {', '.join(n for n, m in METRICS.items() if m.group == group)}"
        for group in GROUPS
    )
    slow = ", ".join(name for name, metric in METRICS.items() if not metric.quick)
    return (
        f"Metrics. {'. '.join(lists)}. By default all but {slow}, which take minutes to hours or "
        "files of weights. scores.json keeps the scores of metrics that are not computed this time "
        "if they are of the same training step."
    )


def read_protocols(options: Namespace) -> dict[str, dict[str, Any]]:
    """The options of each metric, and of the fit of an encoder."""
    names = (FIT, *METRICS)  # one without options has no namespace
    chosen = {name: options[name].as_dict() if name in options else {} for name in names}
    chosen["activeness"].pop("latents")  # not an option of the metric, but an argument
    return chosen


def plan(
    options: Namespace, protocols: Mapping[str, dict[str, Any]], processes: Processes
) -> list[Job]:
    """What is to be done, after all checks that can be made before.

    Raises:
        ValueError: If something in the options is wrong, or cannot be done with the runs.
        FileNotFoundError: If a run, data set or file of weights is missing.
    """
    draws = Draws(
        options.seed,
        options.points,
        options.test_points,
        options.activeness.latents,
        FeatureOptions(**options.features.as_dict()),
    )
    if (options.codes is None) == (not options.run):
        raise ValueError("give run folders, or --codes FILE, and not both")
    names, named = choose_metrics(options.metrics)
    if options.codes is not None:
        jobs = [plan_codes(options, draws)]
    else:
        if options.output is not None:
            raise ValueError("--output goes with --codes; the scores of a run go to its folder")
        jobs = plan_runs(options, draws, processes, names)
    for job in jobs:
        choose(job, names, named=named)
        if options.metrics is None and len(jobs) == 1:
            job.left_out.pop("udr", None)  # nobody asked for what one run cannot have
        for name in job.names:
            check_options(name, job.subject, protocols[name])
    return jobs


def plan_codes(options: Namespace, draws: Draws) -> Job:
    """The job of scoring the codes of a file."""
    if options.encoder == "fit":
        raise ValueError("--encoder fit needs the run of a generator, not --codes")
    subject = Subject(options.codes, read_points(options.codes), draws)
    if options.output is None:
        return Job(subject)
    folder = RunFolder(options.output)
    if folder.path.exists() and not folder.path.is_dir():
        raise ValueError(f"--output {folder.path} is not a folder")
    _check_writable(folder)
    return Job(subject, folder=folder)


def plan_runs(
    options: Namespace, draws: Draws, processes: Processes, names: Sequence[str]
) -> list[Job]:
    """The jobs of scoring runs; those with the same data set share it."""
    device = pick_device(options.device)
    if processes.count > 1:
        if options.device is not None:
            raise ValueError("--device is chosen by accelerate launch for several processes")
        device = processes.device
    jobs: list[Job] = []
    data_sets: dict[str, Any] = {}
    folders = {Path(path).resolve(): path for path in options.run}  # each run once
    for path in folders.values():
        folder = RunFolder.open(path)
        _check_writable(folder)
        old = read_report(folder.scores) if folder.scores.is_file() else None
        model = folder.load_generator()
        fits = options.encoder == "fit"
        data = None
        if needs_data(names, encodes=fits or isinstance(model, Encoder)):
            run = read_run(folder)
            shape = [run.model["image_size"], run.model["image_channels"]]
            key = json.dumps([run.data, shape], sort_keys=True)
            data = data_sets[key] = data_sets.get(key) or run.build_data()
        subject = RunSubject(
            str(path),
            model,
            data,
            draws=draws,
            processes=processes,
            device=device,
            fits_encoder=fits,
        )
        jobs.append(Job(subject, step=folder.read_step(), folder=folder, old=old))
    introduce([job.subject for job in jobs])
    return jobs


def _check_writable(folder: RunFolder) -> None:
    if folder.scores.is_dir():
        raise ValueError(f"scores cannot be written to {folder.scores}: it is a folder")
    if folder.plots.exists() and not folder.plots.is_dir():
        raise ValueError(f"plots cannot be written to {folder.plots}: it is a file")


def needs_data(names: Sequence[str], *, encodes: bool) -> bool:
    """Whether any of the metrics looks at images of the data set."""
    needs = {need for name in names for need in METRICS[name].inputs.needs}
    return "images" in needs or (encodes and "codes" in needs)


def introduce(subjects: Sequence[Any]) -> None:
    """Makes subjects with the same data set and as many axes each other's peers."""
    for one in subjects:
        if one.data is None or "codes" not in one.offers:
            continue
        one.peers = [
            other
            for other in subjects
            if other.data is one.data and len(other.model.axes) == len(one.model.axes)
        ]
        if len(one.peers) > 1:
            one.offers.add("peers")


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
    for name in names:
        reason = lacking(name, job.subject.offers)
        if reason is not None and named:
            raise ValueError(f"{name} of {job.subject.name} needs {reason}")
        try:
            if reason is None:
                load_networks(name, job.subject.draws.features)
        except FileNotFoundError as error:
            if named:
                raise
            reason = str(error)
        if reason is None:
            job.names.append(name)
        else:
            job.left_out[name] = reason
    if not job.names:
        reasons = "; ".join(dict.fromkeys(job.left_out.values()))
        raise ValueError(f"no metric of {job.subject.name} can be computed, for want of {reasons}")


def load_networks(name: str, options: FeatureOptions) -> None:
    """Loads what a metric looks at images through, so that a missing file is found now."""
    if "distance" in METRICS[name].inputs.arguments:
        load_distance(options)
    if "images" in METRICS[name].inputs.needs:
        load_network(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
