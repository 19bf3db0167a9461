"""The report of runs, put together."""

from collections.abc import Sequence
from datetime import datetime

import torch

from disentangle import __version__
from disentangle.reporting import activeness, conditioning
from disentangle.reporting.configuration import list_configuration
from disentangle.reporting.document import Document
from disentangle.reporting.generators import load_generators
from disentangle.reporting.runs import list_runs
from disentangle.reporting.samples import show_samples
from disentangle.reporting.scores import list_scores
from disentangle.reporting.training import draw_training
from disentangle.reporting.traversals import draw_traversals
from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.run import Run


def build_report(
    runs: Sequence[Run],
    *,
    title: str | None = None,
    traversals: int = 1,
    seed: int = 0,
    device: torch.device,
    time: datetime,
) -> Document:
    """Build the report of runs.

    Args:
        runs: One or more runs, see `shorten_names`.
        title: Title; by default the numbers of runs and experiments.
        traversals: Number of latents to start from; with 0 no traversals are drawn.
        seed: Seed for sampling these latents.
        device: Device to decode on.
        time: Time of the report.

    Raises:
        ValueError: If scores or the files of a model are damaged.
    """
    groups = group_by_experiment(runs)
    shown = load_generators(groups, device)
    sections = [
        list_runs(groups),
        list_configuration(groups),
        list_scores(groups),
        draw_training(groups),
        conditioning.draw_section(groups),
    ]
    if shown:
        sections += [activeness.draw_section(shown), show_samples(shown)]
    if shown and traversals:
        sections.append(draw_traversals(shown, samples=traversals, seed=seed))
    return Document(
        title or f"{_count(len(runs), 'run')} of {_count(len(groups), 'experiment')}",
        f"{time:%Y-%m-%d %H:%M %Z}, disentangle {__version__}",
        sections,
    )


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
