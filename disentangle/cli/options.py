"""The options of `disentangle evaluate`."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser, Namespace

from disentangle.cli.common import add_sefa_arguments, pick_device
from disentangle.config.arguments import new_parser
from disentangle.evaluation.feature_sets import FeatureOptions
from disentangle.evaluation.processes import Processes
from disentangle.evaluation.registry import GROUPS, METRICS, choose_metrics
from disentangle.evaluation.rehearsal import check_fit
from disentangle.evaluation.request import Draws, Request
from disentangle.metrics import fit_encoder
from disentangle.metrics.dci import FEWEST_POINTS
from disentangle.output.tables import Format
from disentangle.runs.run_folder import RunFolder
from disentangle.runs.scores_file import FIT

ENCODER_ARGUMENTS: set[str | int] = {"decode", "sample_latents", "directions", "seed", "device"}
SEVERAL = "variation_predictability"  # the metric with several seeds of its own
COMMAND_LINE_ONLY = frozenset({"config", "run", "codes", "output"})  # not part of a protocol


def build_parser() -> ArgumentParser:
    """Build the parser of the command; options of a metric are the arguments of its function."""
    parser = new_parser("evaluate", _describe_metrics())
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file of options, such as configs/evaluate/dlib.yaml; later options override it.",
    )
    _add_targets(parser)
    _add_draws(parser)
    parser.add_argument(
        "--udr.across_settings",
        type=bool,
        default=False,
        help="Whether to compare runs of different settings, in place of seeds of each setting.",
    )
    for name, metric in METRICS.items():
        known = inspect.signature(metric.function).parameters.keys()
        given: set[str | int] = {key for key in known if key in metric.not_options}
        parser.add_function_arguments(metric.function, name, skip=given)
    return parser


def _add_targets(parser: ArgumentParser) -> None:
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
    parser.add_argument("--format", type=Format, default="text", help="Format of the table.")
    parser.add_argument(
        "--output", type=str, help="Folder for scores.json and plots; requires --codes."
    )
    parser.add_argument("--device", type=str, help="Default: a GPU if there is one.")
    parser.add_argument(
        "--encoder",
        type=Literal["own", "fit"],
        default="own",
        help="`fit` fits an encoder to the generator's own images, so that a model without one can "
        "be scored against the factors, and reports how well it reads each latent.",
    )
    parser.add_function_arguments(fit_encoder, FIT, skip=ENCODER_ARGUMENTS)
    add_sefa_arguments(parser)


def _add_draws(parser: ArgumentParser) -> None:
    usual = Draws()
    parser.add_argument(
        "--seed",
        type=int,
        default=usual.seed,
        help=f"Seed of every random draw of the command; it is added to those of {SEVERAL}.seeds.",
    )
    for name, default, text in (
        ("points", usual.points, "Points for metrics of codes"),
        ("test_points", usual.test_points, "Further points, to test classifiers on"),
    ):
        text = f"{text}: by default {default} of a run, all of --codes; fewer are a random subset."
        parser.add_argument(f"--{name}", type=int, help=text)
    text = "Latents around which an axis is moved."
    parser.add_argument("--activeness.latents", type=int, default=usual.latents, help=text)
    parser.add_class_arguments(FeatureOptions, "features")


def _describe_metrics() -> str:
    lists = (
        f"{group}: {', '.join(n for n, m in METRICS.items() if m.group == group)}"
        for group in GROUPS
    )
    slow = ", ".join(name for name, metric in METRICS.items() if not metric.quick)
    return (
        f"Metrics. {'. '.join(lists)}. By default all but {slow}, which take minutes to hours or "
        f"files of weights; below {FEWEST_POINTS:,} training points dci takes the place of "
        "histogram_dci. scores.json keeps the scores of metrics that are not computed this time "
        "if they are of the same training step."
    )


def read_request(options: Namespace, processes: Processes) -> Request:
    """Return the metrics that are requested, and how to compute them.

    Raises:
        ValueError: If options exclude or require each other, or one is out of range.

    Examples:
        >>> options = build_parser().parse_args(["RUN", "--metrics", "mig,sap", "--mig.bins", "10"])
        >>> request = read_request(options, Processes())
        >>> request.names, request.protocols["mig"]
        (['mig', 'sap'], {'bins': 10})
    """
    _check_targets(options)
    names, named = choose_metrics(options.metrics)
    if options.metrics is None and len(options.run) < 2:  # a default that would never be there
        names = [name for name in names if "peers" not in METRICS[name].inputs.needs]
    if options.sefa:
        names = _choose_along_axes(names, named=named)
    protocols = _read_protocols(options)
    if options.encoder == "fit":
        check_fit(protocols[FIT])
    return Request(
        runs=options.run,
        codes=options.codes,
        points=(options.points, options.test_points),
        output=_read_output(options),
        names=names,
        needs={need for name in names for need in METRICS[name].inputs.needs},
        named=named,
        protocols=protocols,
        draws=_read_draws(options),
        device=_choose_device(options.device, processes),
        fits_encoder=options.encoder == "fit",
        sefa=options.sefa,
        sefa_layer=options.sefa_layer,
        sefa_normalise=options.sefa_normalise,
        across_settings=options.udr.across_settings,
        config=[Path(file.relative).name for file in options.config or ()],
    )


def _check_targets(options: Namespace) -> None:
    """Raise `ValueError` unless the options that choose targets go together."""
    if (options.codes is None) == (not options.run):
        raise ValueError("give run folders, or --codes FILE, and not both")
    if options.sefa_layer is not None and not options.sefa:
        raise ValueError("--sefa_layer requires --sefa")
    if options.sefa_normalise and not options.sefa:
        raise ValueError("--sefa_normalise requires --sefa")
    if options.sefa and options.encoder == "fit":
        raise ValueError("--encoder fit reads the model's own axes: leave out --sefa")


def _read_output(options: Namespace) -> RunFolder | None:
    """Return the folder for scores of codes, if any; `ValueError` if it cannot be written to."""
    if options.output is None:
        return None
    if options.output == "":  # as of a variable of the shell that is not set
        raise ValueError("--output must name a folder, got ''")
    if options.codes is None:
        raise ValueError("--output requires --codes; the scores of a run go to its folder")
    folder = RunFolder(options.output)
    folder.check_writable()
    return folder


def _choose_device(name: str | None, processes: Processes) -> torch.device:
    """Return the device of that name, or the default; each of several processes has its own."""
    if processes.count == 1:
        return pick_device(name)
    if name is not None:
        raise ValueError("--device is chosen by accelerate launch for several processes")
    return processes.device


def _choose_along_axes(names: Sequence[str], *, named: bool) -> list[str]:
    """Return the metrics that move a generator along its axes, for which others can be chosen.

    Raises:
        ValueError: If there is none, or another metric that must be computed.
    """
    known = [name for name, metric in METRICS.items() if set(metric.inputs.needs) == {"axes"}]
    others = [name for name in names if name not in known]
    if len(others) == len(names) or (named and others):
        raise ValueError(f"--sefa goes with {' and '.join(known)}, not with {', '.join(others)}")
    return [name for name in names if name in known]


def _read_protocols(options: Namespace) -> dict[str, dict[str, Any]]:
    """Return the options of each metric, and of the fit of an encoder."""
    names = (FIT, *METRICS)  # one without options has no namespace
    chosen = {name: options[name].as_dict() if name in options else {} for name in names}
    chosen["activeness"].pop("latents")  # options of the target, not of the metric
    chosen["udr"].pop("across_settings")
    chosen[SEVERAL]["seeds"] = tuple(options.seed + seed for seed in chosen[SEVERAL]["seeds"])
    return chosen


def _read_draws(options: Namespace) -> Draws:
    """Return the seed and the numbers of points, latents and images to draw."""
    numbers = {
        "points": options.points,
        "test_points": options.test_points,
        "latents": options.activeness.latents,
    }
    given = {name: number for name, number in numbers.items() if number is not None}
    return Draws(options.seed, **given, features=FeatureOptions(**options.features.as_dict()))
