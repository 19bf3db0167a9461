"""`disentangle evaluate RUN`: scores of a run's model, on the terminal and in `scores.json`."""

import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from diffusers import ModelMixin
from jsonargparse import ArgumentParser, Namespace

from disentangle.commands import bad_input_exits, parse_arguments, pick_device, read_run
from disentangle.data import GroundTruthData, ImageData, scale_pixels
from disentangle.metrics import (
    ActivenessResult,
    MigResult,
    activeness,
    factor_vae_score,
    mig,
)
from disentangle.models import Encoder
from disentangle.parsing import new_parser
from disentangle.training.run_folder import RunFolder, replace_text

LIBRARIES = ("disentangle", "torch", "numpy", "scikit-learn")
CHUNK = 1024  # images that are made or encoded at once


def main(arguments: Sequence[str]) -> int:
    """Scores a run; returns the exit status."""
    with bad_input_exits("evaluate"):
        options = parse_arguments(build_parser(), arguments)
        folder = RunFolder.open(options.run)
        model = folder.load_generator().to(pick_device(options.device))
        data = read_run(folder).build_data() if isinstance(model, Encoder) else None
        if folder.scores.is_dir():
            raise ValueError(f"scores cannot be written to {folder.scores}: it is a folder")
        step = folder.read_step()
        scores = compute_scores(model, data, options)
    report = {
        "step": step,
        "versions": {name: version(name) for name in LIBRARIES},
        "scores": scores,
    }
    replace_text(folder.scores, json.dumps(_plain(report), indent=1))
    print(format_table(scores, model))
    print(f"\nscores: {folder.scores}")
    return 0


def build_parser() -> ArgumentParser:
    """The options of the command; those of a metric are the arguments of its function."""
    parser = new_parser("evaluate")
    parser.add_argument("run", type=str, help="A run folder.")
    parser.add_argument("--seed", type=int, default=0, help="Of every random draw.")
    parser.add_argument("--device", type=str, help="Default: a GPU if there is one.")
    parser.add_argument(
        "--mig.points", type=int, default=10_000, help="Points that MIG is computed from."
    )
    parser.add_function_arguments(mig, "mig", skip={"codes", "factors"})
    parser.add_function_arguments(
        factor_vae_score, "factor_vae_score", skip={"represent", "factor_sizes", "seed"}
    )
    parser.add_argument(
        "--activeness.latents", type=int, default=100, help="Latents around which an axis is moved."
    )
    parser.add_function_arguments(
        activeness, "activeness", skip={"decode", "latents", "directions", "std", "batch_size"}
    )
    return parser


def compute_scores(
    model: ModelMixin, data: ImageData | None, options: Namespace
) -> dict[str, dict[str, Any]]:
    """Every score that the model allows, by the metric's name.

    Args:
        model: A generator; with an `encode`, the supervised metrics are computed too.
        data: The data set with the ground-truth factors, if any.
        options: As `build_parser` parses them.
    """
    seed, scores = options.seed, {}
    if isinstance(data, GroundTruthData):
        represent = build_representation(model, data)
        scores["mig"] = timed(score_mig, represent, data, seed=seed, **options.mig)
        scores["factor_vae_score"] = timed(
            factor_vae_score, represent, data.factor_sizes, seed=seed, **options.factor_vae_score
        )
    scores["activeness"] = timed(score_axes, model, seed=seed, **options.activeness)
    return scores


def build_representation(
    model: ModelMixin, data: GroundTruthData
) -> Callable[[np.ndarray], np.ndarray]:
    """The function from factors `(N, F)` to codes `(N, K)`: render, then encode."""

    @torch.no_grad()
    def represent(factors: np.ndarray) -> np.ndarray:
        chunks = (factors[i : i + CHUNK] for i in range(0, len(factors), CHUNK))
        images = (scale_pixels(data.render(chunk).to(model.device)) for chunk in chunks)
        return torch.cat([model.encode(batch).cpu() for batch in images]).numpy()

    return represent


def score_mig(
    represent: Callable[[np.ndarray], np.ndarray],
    data: GroundTruthData,
    *,
    points: int,
    seed: int,
    **protocol: Any,
) -> MigResult:
    """MIG of the codes of `points` random images."""
    _check_positive("mig.points", points)
    factors = data.sample_factors(points, np.random.default_rng(seed))
    return mig(represent(factors), factors, **protocol)


def score_axes(model: ModelMixin, *, latents: int, seed: int, **protocol: Any) -> ActivenessResult:
    """Activeness of every axis of a generator, around random latents of its prior."""
    _check_positive("activeness.latents", latents)
    z = model.sample_latents(latents, torch.Generator().manual_seed(seed)).to(model.device)
    directions = torch.stack([axis.direction for axis in model.axes]).to(model.device)
    stds = [axis.std for axis in model.axes]
    return activeness(model.decode, z, directions, std=stds, **protocol)


def timed(metric: Callable[..., Any], *arguments: Any, **protocol: Any) -> dict[str, Any]:
    """A metric's result with the protocol it was computed by and the seconds it took."""
    start = time.perf_counter()
    details = asdict(metric(*arguments, **protocol))
    seconds = time.perf_counter() - start
    return {
        "score": details.pop("score"),
        "protocol": protocol,
        "seconds": round(seconds, 3),
        "details": details,
    }


def format_table(scores: dict[str, dict[str, Any]], model: ModelMixin) -> str:
    """The scores as a table, with the activeness of each axis below it."""
    rows = [f"{'metric':<20} {'score':>8} {'seconds':>8}  protocol"]
    for name, score in scores.items():
        protocol = ", ".join(f"{key} {value}" for key, value in score["protocol"].items())
        rows.append(f"{name:<20} {score['score']:>8.4f} {score['seconds']:>8.1f}  {protocol}")
    rows += ["", f"{'axis':<24} {'activeness':>10}"]
    per_axis = scores["activeness"]["details"]["per_axis"]
    most = max(per_axis.max(), np.finfo(float).tiny)
    for axis, value in zip(model.axes, per_axis, strict=True):
        bar = "█" * round(24 * value / most)
        rows.append(f"{f'{axis.group}, {axis.name}':<24} {value:>10.5f}  {bar}")
    return "\n".join(rows)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be positive, got {value}")


def _plain(value: Any) -> Any:
    """Arrays as lists, for JSON, which has no name for NaN or infinity."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
