"""`disentangle evaluate RUN…`: scores of models, or of codes that came from anywhere.

Scores go to the terminal as a table and, with all that is behind them, to `scores.json`.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from diffusers import ModelMixin
from jsonargparse import Namespace
from tqdm import tqdm

from disentangle.cli.common import bad_input_exits, pick_device, read_run
from disentangle.cli.options import build_parser, read_draws, read_protocols
from disentangle.config import ClassificationObjective
from disentangle.config.arguments import parse_arguments
from disentangle.data import ImageData
from disentangle.evaluation.classifier_target import ClassifierTarget
from disentangle.evaluation.generator_target import GeneratorTarget
from disentangle.evaluation.processes import Processes, leads_its_machine, silence
from disentangle.evaluation.progress import Progress
from disentangle.evaluation.registry import METRICS, choose_metrics
from disentangle.evaluation.rehearsal import check_fit, check_options
from disentangle.evaluation.representations import draw_points, identify_points, read_points
from disentangle.evaluation.runner import Job
from disentangle.evaluation.sampling import Draws
from disentangle.evaluation.scores_file import FIT, read_report
from disentangle.evaluation.selection import choose, introduce, needs_data, prefer_exact
from disentangle.evaluation.summary import format_axes, format_jobs, list_notes
from disentangle.evaluation.target import Target
from disentangle.models import Encoder, RotatedGenerator, sefa_axes
from disentangle.output.files import check_file, check_folder
from disentangle.output.tables import Format
from disentangle.output.text import escape_control_characters
from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.run_folder import RunFolder


class RunJob(NamedTuple):
    """The job of scoring a run.

    Attributes:
        folder: The run's.
        config: The run's configuration, as it stands in the file.
        job: What is to be done.
    """

    folder: RunFolder
    config: dict[str, Any]
    job: Job


def main(arguments: Sequence[str]) -> int:
    """Scores runs, or codes; returns the exit status: 1 if a metric could not be computed."""
    with silence(unless=leads_its_machine()), bad_input_exits("evaluate"):
        processes = Processes()
    with silence(unless=processes.is_first):
        with bad_input_exits("evaluate"):
            options = parse_arguments(build_parser(), arguments)
            protocols = read_protocols(options)
            jobs = plan(options, protocols, processes)
        count = sum(len(job.names) for job in jobs)
        with tqdm(total=count, desc="metrics", disable=None, leave=False) as bar:
            for job in jobs:
                job.prepare(protocols[FIT])
            for job in jobs:
                job.compute(protocols, processes, bar)
        report(jobs, options.format)
    processes.leave()
    return int(any(job.failed for job in jobs))


def report(jobs: Sequence[Job], kind: Format) -> None:
    """Prints the table; what is not part of it goes to the standard error, unless it is text."""
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


def plan(
    options: Namespace, protocols: Mapping[str, dict[str, Any]], processes: Processes
) -> list[Job]:
    """What is to be done, after all checks that can be made before.

    Raises:
        ValueError: If something in the options is wrong, or cannot be done with the runs.
        FileNotFoundError: If a run, data set or file of weights is missing.
    """
    draws = read_draws(options)
    if (options.codes is None) == (not options.run):
        raise ValueError("give run folders, or --codes FILE, and not both")
    names, named = choose_metrics(options.metrics)
    if options.sefa:
        names = choose_along_axes(names, named=named)
    elif options.sefa_layer is not None:
        raise ValueError("--sefa_layer has a meaning with --sefa only")
    if options.output == "":  # as of a variable of the shell that is not set
        raise ValueError("--output must name a folder, got ''")
    if options.codes is not None:
        jobs = [plan_codes(options, draws, processes)]
    else:
        if options.output is not None:
            raise ValueError("--output goes with --codes; the scores of a run go to its folder")
        jobs = plan_runs(options, draws, processes, names)
    if options.encoder == "fit":
        check_fit(protocols[FIT])
    for job in jobs:
        choose(job, prefer_exact(job, names, protocols), named=named)
        if options.metrics is None and len(jobs) == 1:
            job.left_out.pop("udr", None)  # nobody asked for what one run cannot have
        for name in job.names:
            check_options(name, job.target, protocols[name])
    return jobs


def choose_along_axes(names: Sequence[str], *, named: bool) -> list[str]:
    """Those of the metrics that move a generator along its axes, for which axes can be changed.

    Raises:
        ValueError: If there is none, or another that must be computed.
    """
    known = [name for name, metric in METRICS.items() if set(metric.inputs.needs) == {"axes"}]
    others = [name for name in names if name not in known]
    if len(others) == len(names) or (named and others):
        raise ValueError(f"--sefa goes with {' and '.join(known)}, not with {', '.join(others)}")
    return [name for name in names if name in known]


def plan_codes(options: Namespace, draws: Draws, processes: Processes) -> Job:
    """The job of scoring the codes of a file."""
    _check_no_generator(options, "--codes")
    progress = Progress(shown=processes.is_first)
    points = read_points(options.codes)
    points = draw_points(points, options.points, options.test_points, seed=draws.seed)
    target = Target(options.codes, points, draws, progress)
    if options.output is None:
        return Job(target)
    folder, codes = RunFolder(options.output), identify_points(options.codes)
    _check_writable(folder)
    return Job(target, folder=folder, old=_read_scores_of(codes, folder), codes=codes)


def _read_scores_of(codes: Mapping[str, str], folder: RunFolder) -> dict[str, Any] | None:
    """The scores of these codes that a folder holds; of nothing else may it hold any."""
    if folder.config.exists():
        raise ValueError(f"--output {folder.path} holds a run: choose another folder")
    if not folder.scores.exists():
        return None
    old = read_report(folder.scores)
    known = old.get("codes") or {}
    if known.get("sha256") != codes["sha256"]:
        other = known.get("file", "something else")
        if other == codes["file"]:
            other = f"what was in {other} before"
        raise ValueError(
            f"--output {folder.path} holds scores of {other}: choose another folder, or remove "
            f"{folder.scores}"
        )
    return old


def plan_runs(
    options: Namespace, draws: Draws, processes: Processes, names: Sequence[str]
) -> list[Job]:
    """The jobs of scoring runs; those with the same data set share it."""
    device = pick_device(options.device)
    if processes.count > 1:
        if options.device is not None:
            raise ValueError("--device is chosen by accelerate launch for several processes")
        device = processes.device
    planned: list[RunJob] = []
    data_sets: dict[str, Any] = {}
    folders = {Path(path).resolve(): path for path in options.run}  # each run once
    for path in folders.values():
        folder = RunFolder.open(path)
        _check_writable(folder)
        old = read_report(folder.scores) if folder.scores.is_file() else None
        common: dict[str, Any] = {"draws": draws, "processes": processes, "device": device}
        if folder.classifies:
            target = _judge_classifier(folder, str(path), options, common)
        else:
            load = partial(_build_data, folder, data_sets)
            target = _judge_generator(folder, str(path), options, names, load, common)
        job = Job(target, step=folder.read_step(), folder=folder, old=old)
        planned.append(RunJob(folder, folder.read_config(), job))
    _introduce_runs(planned, across_settings=options.udr.across_settings)
    return [run.job for run in planned]


def _judge_classifier(
    folder: RunFolder, name: str, options: Namespace, common: Mapping[str, Any]
) -> Target:
    """The classifier of a run with the images that it is tested on."""
    _check_no_generator(options, name)
    run = read_run(folder)
    assert isinstance(run.objective, ClassificationObjective)
    split = run.objective.test_split
    if split == "none":
        raise ValueError(f"{name} has no images to be tested on: objective.test_split is none")
    data = run.build_data(split=split)
    return ClassifierTarget(name, folder.load_classifier(), data, split=split, **common)


def _check_no_generator(options: Namespace, name: str) -> None:
    """Whether nothing is asked for that only a generator has."""
    for option, given in (("encoder fit", options.encoder == "fit"), ("sefa", options.sefa)):
        if given:
            raise ValueError(f"--{option} needs the run of a generator, not {name}")


def _judge_generator(
    folder: RunFolder,
    name: str,
    options: Namespace,
    metrics: Sequence[str],
    load_data: Callable[[], ImageData],
    common: Mapping[str, Any],
) -> Target:
    """The generator of a run, with its data set if the metrics look at it."""
    model, fits = folder.load_generator(), options.encoder == "fit"
    if options.sefa and fits:
        raise ValueError("--encoder fit reads the model's own axes: leave out --sefa")
    if options.sefa:
        return GeneratorTarget(name, _rotate(model, options.sefa_layer), None, **common)
    needed = needs_data(metrics, encodes=fits or isinstance(model, Encoder))
    data = load_data() if needed else None
    return GeneratorTarget(name, model, data, fits_encoder=fits, **common)


def _rotate(model: ModelMixin, layer: str | None) -> RotatedGenerator:
    """A generator in the coordinates that SeFa finds."""
    try:
        axes = sefa_axes(model, layer)
    except ValueError as error:  # it names the arguments of the function
        raise ValueError(
            f"--sefa needs a layer that takes in all latents (--sefa_layer LAYER): {error}"
        ) from error
    return RotatedGenerator(model, axes)


def _introduce_runs(runs: Sequence[RunJob], *, across_settings: bool) -> None:
    """Makes peers of the runs of each experiment, or across experiments."""
    groups = [runs] if across_settings else group_by_experiment(runs).values()
    for group in groups:
        introduce([run.job.target for run in group], across_settings=across_settings)


def _build_data(folder: RunFolder, known: dict[str, Any]) -> ImageData:
    """The data set of a run, the same object for runs with the same."""
    run = read_run(folder)
    shape = [run.model["image_size"], run.model["image_channels"]]
    key = json.dumps([run.data, shape], sort_keys=True)
    if key not in known:
        known[key] = run.build_data()
    return known[key]


def _check_writable(folder: RunFolder) -> None:
    """Raise `ValueError` unless scores and plots can be written."""
    check_folder(folder.plots)
    check_folder(folder.path)  # `scores.json` is replaced by a new file
    check_file(folder.scores, overwrite=True, new_folder=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
