"""The report of runs, put together."""

from collections.abc import Sequence
from datetime import datetime

import torch

from disentangle import __version__
from disentangle.reporting import activeness, conditioning
from disentangle.reporting.configuration import list_configuration
from disentangle.reporting.document import Document
from disentangle.reporting.generators import load_generators
from disentangle.reporting.runs import ReportedRun, group_reported, list_runs
from disentangle.reporting.samples import show_samples
from disentangle.reporting.scores import list_scores
from disentangle.reporting.training import draw_training
from disentangle.reporting.traversals import draw_traversals


def build_report(
    runs: Sequence[ReportedRun],
    *,
    title: str | None = None,
    traversals: int = 1,
    seed: int = 0,
    device: torch.device,
    time: datetime,
) -> Document:
    """What there is to say of runs.

    Args:
        runs: At least one.
        title: Default: how many runs and experiments there are.
        traversals: How many latents to start from; none are drawn if it is 0.
        seed: Of these latents.
        device: Where they are decoded.
        time: When the report is made.

    Raises:
        ValueError: If the files of a model are not what a run writes.
    """
    groups = group_reported(runs)
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
