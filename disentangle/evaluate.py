"""`disentangle evaluate RUN`: scores of a run's model, on the terminal and in `scores.json`."""

import json
import os
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
from torch import Tensor

from disentangle.commands import bad_input_exits, parse_arguments, pick_device, read_run
from disentangle.data import GroundTruthData, ImageData, scale_pixels
from disentangle.metrics import activeness, factor_vae_score, mig
from disentangle.models import Encoder
from disentangle.training.checkpoints import find_checkpoint, read_step
from disentangle.training.run_folder import RunFolder

LIBRARIES = ("disentangle", "torch", "numpy", "scikit-learn")
CHUNK = 1024  # images that are made or encoded at once


def main(arguments: Sequence[str]) -> int:
    """Scores a run; returns the exit status."""
    with bad_input_exits("evaluate"):
        options = parse_arguments(build_parser(), arguments)
        folder = RunFolder.open(options.run)
        model = folder.load_generator().to(pick_device(options.device))
        data = read_run(folder).build_data() if isinstance(model, Encoder) else None
    scores = compute_scores(model, data, options)
    report = {
        "step": read_step(find_checkpoint(folder.checkpoints, "latest")),
        "versions": {name: version(name) for name in LIBRARIES},
        "scores": scores,
    }
    temporary = folder.scores.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1, default=_jsonable), encoding="utf-8")
    os.replace(temporary, folder.scores)
    print(format_table(scores))
    print(f"\nscores: {folder.scores}")
    return 0


def build_parser() -> ArgumentParser:
    """The options of the command; those of a metric are the arguments of its function."""
    parser = ArgumentParser(prog="disentangle evaluate", exit_on_error=False)
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
    scores["activeness"] = timed(score_axes, model, seed=seed)
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
) -> Any:
    """MIG of the codes of `points` random images."""
    factors = data.sample_factors(points, np.random.default_rng(seed))
    return mig(represent(factors), factors, **protocol)


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
