"""The targets that are requested, with the folders that their scores go to."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from disentangle.config import ClassificationObjective
from disentangle.data import ImageData
from disentangle.evaluation.classifier_target import ClassifierTarget
from disentangle.evaluation.generator_target import GeneratorTarget
from disentangle.evaluation.processes import Processes
from disentangle.evaluation.progress import Progress
from disentangle.evaluation.representations import Target, draw_points, read_points
from disentangle.evaluation.request import Request
from disentangle.evaluation.runner import Job
from disentangle.models import Encoder, RotatedGenerator, sefa_axes
from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.run import Run, open_runs
from disentangle.runs.run_folder import RunFolder
from disentangle.runs.scores_file import ScoresFile, read_scores


def plan(request: Request, processes: Processes) -> list[Job]:
    """Return a job for each run, or one for the codes of a file; metrics are not chosen yet.

    Raises:
        ValueError: If something that is requested cannot be scored, or scores not be written.
        FileNotFoundError: If a run, model, data set or file is missing.
    """
    if request.codes is not None:
        return [_plan_codes(request.codes, request, processes)]
    common = {"draws": request.draws, "processes": processes, "device": request.device}
    data_sets: dict[str, ImageData] = {}
    runs = open_runs(request.runs)
    jobs = {run: _plan_run(run, request, data_sets, common) for run in runs}
    groups = [runs] if request.across_settings else group_by_experiment(runs).values()
    for group in groups:
        _introduce([jobs[run].target for run in group], across_settings=request.across_settings)
    return list(jobs.values())


def _plan_codes(file: str, request: Request, processes: Processes) -> Job:
    """Return the job of scoring the codes of a file."""
    _check_no_generator(request, "--codes")
    points = draw_points(read_points(file), *request.points, seed=request.draws.seed)
    target = Target(file, points, request.draws, Progress(shown=processes.is_first))
    if request.output is None:
        return Job(target, config=request.config)
    saved = _read_scores_of(points.source, request.output)
    return Job(target, folder=request.output, saved=saved, config=request.config)


def _read_scores_of(codes: Mapping[str, str], folder: RunFolder) -> ScoresFile:
    """Return the scores of these codes that a folder holds; it may hold no others."""
    if folder.config.exists():
        raise ValueError(f"--output {folder.path} holds a run: choose another folder")
    if not folder.scores.exists():
        return ScoresFile(codes=codes)
    saved = read_scores(folder.scores)
    if saved.codes.get("sha256") != codes["sha256"]:
        other = saved.codes.get("file", "something else")
        if other == codes["file"]:
            other = f"what was in {other} before"
        raise ValueError(
            f"--output {folder.path} holds scores of {other}: choose another folder, or remove "
            f"{folder.scores}"
        )
    return ScoresFile(codes=codes, scores=saved.scores)


def _plan_run(
    run: Run, request: Request, data_sets: dict[str, ImageData], common: dict[str, Any]
) -> Job:
    run.folder.check_writable()
    if run.classifies:
        target = _target_classifier(run, request, common)
    else:
        target = _target_generator(run, request, data_sets, common)
    saved = run.scores_file.at_step(run.folder.read_step())
    return Job(target, folder=run.folder, saved=saved, config=request.config)


def _target_classifier(run: Run, request: Request, common: dict[str, Any]) -> Target:
    """Return the classifier of a run with the images to test it on."""
    _check_no_generator(request, run.name)
    assert isinstance(run.config.objective, ClassificationObjective)
    split = run.config.objective.test_split
    if split == "none":
        raise ValueError(f"{run.name} has no images to be tested on: objective.test_split is none")
    data = run.config.build_data(split=split)
    return ClassifierTarget(run.name, run.model, data, split=split, **common)


def _target_generator(
    run: Run, request: Request, data_sets: dict[str, ImageData], common: dict[str, Any]
) -> Target:
    """Return the generator of a run, with its data set if a metric needs it."""
    model, fits = run.model, request.fits_encoder
    if request.sefa:
        model = _rotate(model, request)
    encodes = fits or isinstance(model, Encoder)
    needed = "images" in request.needs or (encodes and "codes" in request.needs)
    data = _build_data(run, data_sets) if needed else None
    return GeneratorTarget(run.name, model, data, fits_encoder=fits, **common)


def _introduce(targets: Sequence[Any], *, across_settings: bool) -> None:
    """Make targets with the same data set and as many axes each other's peers.

    Args:
        targets: Targets of runs; those of one experiment, unless `across_settings`.
        across_settings: Value of their attribute.
    """
    for one in targets:
        one.across_settings = across_settings
        if one.data is None or "codes" not in one.offers:
            continue
        one.peers = [
            other
            for other in targets
            if other.data is one.data and len(other.model.axes) == len(one.model.axes)
        ]
        if len(one.peers) > 1:
            one.offers.add("peers")


def _rotate(model: Any, request: Request) -> RotatedGenerator:
    """Return a generator in the coordinates that SeFa finds."""
    try:
        axes = sefa_axes(model, request.sefa_layer, normalise=request.sefa_normalise)
        return RotatedGenerator(model, axes)
    except ValueError as error:  # it names the arguments of the function
        raise ValueError(
            f"--sefa needs a layer that takes in all latents (--sefa_layer LAYER): {error}"
        ) from error


def _build_data(run: Run, known: dict[str, ImageData]) -> ImageData:
    """Return the data set of a run, the same object for runs with the same options."""
    shape = [run.config.model["image_size"], run.config.model["image_channels"]]
    key = json.dumps([run.config.data, shape], sort_keys=True)
    if key not in known:
        known[key] = run.config.build_data()
    return known[key]


def _check_no_generator(request: Request, name: str) -> None:
    """Raise `ValueError` if something is requested that only a generator has."""
    for option, given in (("encoder fit", request.fits_encoder), ("sefa", request.sefa)):
        if given:
            raise ValueError(f"--{option} needs the run of a generator, not {name}")
