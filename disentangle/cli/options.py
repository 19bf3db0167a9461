"""The options of `disentangle evaluate`."""

import inspect
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from disentangle.cli.common import add_sefa_arguments
from disentangle.config.arguments import new_parser
from disentangle.evaluation.feature_sets import FeatureOptions
from disentangle.evaluation.registry import GROUPS, METRICS
from disentangle.evaluation.sampling import Draws
from disentangle.evaluation.scores_file import FIT
from disentangle.metrics import fit_encoder
from disentangle.metrics.dci import FEWEST_POINTS
from disentangle.output.tables import Format

ENCODER_ARGUMENTS: set[str | int] = {"decode", "sample_latents", "directions", "seed", "device"}
SEVERAL = "variation_predictability"  # the metric with several seeds of its own


def build_parser() -> ArgumentParser:
    """The options of the command; those of a metric are the arguments of its function."""
    parser = new_parser("evaluate", _describe_metrics())
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
    parser.add_argument("--format", type=Format, default="text", help="Of the printed table.")
    parser.add_argument(
        "--output", type=str, help="With --codes: the folder for scores.json and plots."
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
        help=f"Of every random draw of the command; it is added to those of {SEVERAL}.seeds.",
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


def read_protocols(options: Namespace) -> dict[str, dict[str, Any]]:
    """The options of each metric, and of the fit of an encoder.

    Examples:
        >>> options = build_parser().parse_args(["--seed", "5", "--mig.bins", "10"])
        >>> protocols = read_protocols(options)
        >>> protocols["mig"], protocols["variation_predictability"]["seeds"]
        ({'bins': 10}, (5, 6, 7))
    """
    names = (FIT, *METRICS)  # one without options has no namespace
    chosen = {name: options[name].as_dict() if name in options else {} for name in names}
    chosen["activeness"].pop("latents")  # not options of the metric, but what it is computed from
    chosen["udr"].pop("across_settings")
    chosen[SEVERAL]["seeds"] = tuple(options.seed + seed for seed in chosen[SEVERAL]["seeds"])
    return chosen


def read_draws(options: Namespace) -> Draws:
    """How much is to be drawn.

    Raises:
        ValueError: If a number is out of its range.
    """
    numbers = {
        "points": options.points,
        "test_points": options.test_points,
        "latents": options.activeness.latents,
    }
    given = {name: number for name, number in numbers.items() if number is not None}
    return Draws(options.seed, **given, features=FeatureOptions(**options.features.as_dict()))
