"""The generators of a report: of each experiment the first run's."""

from typing import NamedTuple

import torch
from diffusers import ModelMixin

from disentangle.reporting.runs import Groups, ReportedRun


class ShownGenerator(NamedTuple):
    """What stands for an experiment.

    Attributes:
        label: Of the experiment.
        number: Of the experiment, from 1.
        runs: Of the experiment; the first is the one that is drawn.
        model: Of the first run, in evaluation mode; None if it has not written any yet.
    """

    label: str
    number: int
    runs: list[ReportedRun]
    model: ModelMixin | None

    @property
    def run(self) -> ReportedRun:
        """The one that is drawn."""
        return self.runs[0]

    def title(self, run: ReportedRun) -> str:
        """How a picture of a run of the experiment is headed."""
        return self.label if run.name in self.label else f"{self.label}, run {run.name}"


def load_generators(groups: Groups, device: torch.device) -> list[ShownGenerator]:
    """The generators of all experiments but those that recognise.

    Raises:
        ValueError: If the files of a model are not what a run writes.
    """
    return [
        ShownGenerator(label, number, list(runs), _load(runs[0], device))
        for number, (label, runs) in enumerate(groups.items(), start=1)
        if not runs[0].folder.classifies
    ]


def _load(run: ReportedRun, device: torch.device) -> ModelMixin | None:
    try:
        return run.folder.load_generator().to(device)
    except FileNotFoundError:  # a run in progress
        return None
