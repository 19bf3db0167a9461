"""The generators of a report, one for each experiment: that of its first run."""

from typing import NamedTuple

import torch
from diffusers import ModelMixin

from disentangle.reporting.runs import Groups
from disentangle.runs.run import Run


class ShownGenerator(NamedTuple):
    """An experiment, with the generator of its first run.

    Attributes:
        label: Label of the experiment.
        number: Number of the experiment, from 1.
        runs: Runs of the experiment; the first is the one that is drawn.
        model: Generator of the first run, in evaluation mode; None if it has not written one yet.
    """

    label: str
    number: int
    runs: list[Run]
    model: ModelMixin | None

    @property
    def run(self) -> Run:
        """The run that is drawn."""
        return self.runs[0]

    def title(self, run: Run) -> str:
        """Return the heading of a picture of a run of the experiment."""
        return self.label if run.name in self.label else f"{self.label}, run {run.name}"


def load_generators(groups: Groups, device: torch.device) -> list[ShownGenerator]:
    """Load the generators of all experiments but those of the task classification.

    Raises:
        ValueError: If the files of a model are not what a run writes.
    """
    return [
        ShownGenerator(label, number, list(runs), _load(runs[0], device))
        for number, (label, runs) in enumerate(groups.items(), start=1)
        if not runs[0].classifies
    ]


def _load(run: Run, device: torch.device) -> ModelMixin | None:
    try:
        return run.generator.to(device)
    except FileNotFoundError:  # a run in progress
        return None
