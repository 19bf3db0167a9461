"""Runs of all tasks on data that need no file.

To add a task, add an entry to `TASKS`.
"""

import json
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from accelerate.state import AcceleratorState, GradientState

from disentangle.config.parse import parse_run
from disentangle.training.trainer import Trainer
from tests.helpers.waiting import refusing_to_wait

from .harness import ROOT, Setting, require


@dataclass(frozen=True)
class Task:
    """Options of a task.

    Attributes:
        recipe: File in `configs/`.
        toy: Options for a size that suits a CPU.
        loss: Name of the loss in `metrics.jsonl`.
        metrics: Metrics that `evaluate` computes in seconds.
        constant_rate: Options for a constant learning rate.
        draws: Whether the model has latents to traverse.
    """

    recipe: str
    toy: str
    loss: str
    metrics: str
    constant_rate: str = "--optimizer.schedule constant"
    draws: bool = True


TASKS = {
    "gan": Task(
        "eigengan_sprites",
        "--model.base_channels 4 --model.max_channels 8 --model.noise_dim 8 "
        "--discriminator.base_channels 4 --discriminator.max_channels 8 --training.batch_size 8",
        loss="loss/generator",
        metrics="activeness",
    ),
    "vae": Task(
        "quickstart",
        "--model.base_channels 4 --model.hidden_dim 32 --training.batch_size 8 --training.starts 1",
        loss="loss",
        metrics="mig,sap,activeness",
        constant_rate="--optimizer.schedule constant --optimizer.decay_from 0",
    ),
    "classification": Task(
        "dbn_tiny_digits",
        "--model.base_channels 4 --training.batch_size 16",
        loss="loss",
        metrics="accuracy",
        draws=False,
    ),
}
# The first steps create library handles and allocate workspaces.
UNWATCHED = 3


def options(task: str, setting: Setting, folder: Path, *more: str) -> list[str]:
    """Build the command-line options of a run.

    Args:
        task: Name in `TASKS`.
        setting: Device and size of the checks.
        folder: Run folder.
        *more: Further options, as on the command line.
    """
    chosen = TASKS[task]
    toy = f"--training.cpu_threads 1 {chosen.toy}" if setting.quick else ""
    given = [toy, *more]
    recipe = ROOT / "configs" / f"{chosen.recipe}.yaml"
    return ["--config", str(recipe), "--output", str(folder), *shlex.split(" ".join(given))]


def read_losses(task: str, folder: Path) -> list[float]:
    """Read the losses of a run, and check that they are finite."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    name = TASKS[task].loss
    losses = [line[name] for line in lines if name in line]  # null where it is not finite
    require(bool(losses) and None not in losses, "finite losses", losses)
    return losses


@contextmanager
def lone_run(setting: Setting) -> Iterator[Path]:
    """Provide a temporary run folder and a fresh state of Accelerate."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ):
        if setting.device.type == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"
        forget_runs()
        try:
            yield Path(folder) / "run"
        finally:
            forget_runs()


def forget_runs() -> None:
    """Clear the state of Accelerate, which it shares among all runs of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def run_beside_others() -> None:
    """Give the next run a state of Accelerate of its own; existing runs keep theirs."""
    AcceleratorState._shared_state = {}


class WatchedTrainer(Trainer):
    """A run that refuses host synchronisation between its first steps and its last."""

    watch: ExitStack

    def _measure(self, log, watch) -> None:
        if self.step == self.run.training.steps:
            self.watch.close()  # a classifier is now validated
        super()._measure(log, watch)

    def _write_what_is_due(self, log, *, last: bool) -> None:
        super()._write_what_is_due(log, last=last)
        if self.step == UNWATCHED:
            self.watch.enter_context(refusing_to_wait(self.accelerator.device))


def train_without_waiting(task: str, techniques: str, setting: Setting) -> str:
    """Train for some steps, including data loading, augmentation, averages and penalties."""
    more = [
        f"--orthogonality [{techniques}]",
        f"--training.steps {2 * UNWATCHED}",
        "--training.log_every 1000 --training.conditioning_every 0",
        f"--training.mixed_precision {'bf16' if setting.device.type == 'cuda' else 'no'}",
        "--training.flip true --training.crop_padding 2 --training.crop_area 0.5",
        "--objective.r1_every 2 --objective.augment_probability 0.6" if task == "gan" else "",
    ]
    with lone_run(setting) as folder, ExitStack() as watch:
        trainer = WatchedTrainer(parse_run(options(task, setting, folder, *more))[0])
        trainer.watch = watch
        trainer.train()
        require(trainer.step == 2 * UNWATCHED, f"{2 * UNWATCHED} steps", trainer.step)
    return ""
