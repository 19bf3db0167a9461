"""Start of a run: afresh in its folder, or from a checkpoint of an earlier run there."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils.constants import FSDP_MODEL_NAME
from diffusers import ModelMixin

from disentangle.config import RunConfig, find_changes
from disentangle.distributed.launch import divides_networks
from disentangle.orthogonality import WEIGHT_TECHNIQUES
from disentangle.output.text import cut, escape_control_characters
from disentangle.runs.atomic import replace_text
from disentangle.runs.checkpoints import (
    drop_checkpoints_after,
    find_checkpoint,
    later_checkpoints,
    load_checkpoint,
    read_facts,
    torn_checkpoints,
)
from disentangle.runs.fingerprint import MODIFIED, Fingerprint
from disentangle.runs.metrics_log import drop_lines_after, read_lines
from disentangle.runs.run_folder import RunFolder
from disentangle.training.nonfinite import check_weights
from disentangle.training.task import VALIDATION_SCORE


@dataclass(frozen=True)
class Resumption:
    """Start of a run: the checkpoint that it resumes from, or None for a fresh run.

    `open` checks and writes nothing; `take_folder` is the first to write.

    Attributes:
        run: The run.
        folder: Its folder.
        checkpoint: Folder of the checkpoint; None for a fresh run.
        facts: Contents of the checkpoint's manifest.
        saved: Configuration that the checkpoint was trained with, as saved in the file.
    """

    run: RunConfig
    folder: RunFolder
    checkpoint: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=lambda: {"step": 0})
    saved: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, run: RunConfig, which: str | None, *, overwrite: bool) -> "Resumption":
        """Find the start of a run, after all checks of the folder.

        Args:
            run: The run.
            which: Checkpoint to resume from, `latest` or `step-N`; None starts afresh.
            overwrite: Allow a run in the folder, or its later checkpoints, to be replaced.

        Raises:
            ValueError: If the folder holds something else, or the run cannot be resumed as asked.
            BlockingIOError: If another process trains in the folder.
        """
        folder = RunFolder(run.output)
        saved = folder.check_claim(resume=which is not None, overwrite=overwrite)
        if which is None:
            return cls(run, folder)
        _check_architecture(saved, run.as_dict(), folder.path)
        checkpoint = find_checkpoint(folder.checkpoints, which)
        start = cls(run, folder, checkpoint, read_facts(checkpoint), saved)
        check_division(checkpoint)
        start._check_future(overwrite=overwrite)
        return start

    @property
    def step(self) -> int:
        """Number of optimizer steps that were made before; 0 for a fresh run."""
        return self.facts["step"]

    def describe(self, data: Fingerprint) -> Iterator[str]:
        """Yield lines on what differs from the run that is resumed, none for a fresh run.

        Args:
            data: Fingerprint of the current data set. With other data, the remaining steps go
                through the images in another order, and repeat some of them.

        Raises:
            ValueError: If held-out images of a classifier may have been trained on.
        """
        if self.checkpoint is None:
            return
        if torn := torn_checkpoints(self.folder.checkpoints, self.step):
            names = ", ".join(f"step-{number}" for number in torn)
            yield f"resuming from step-{self.step}; incomplete checkpoints: {names}"
        change = data.describe_change(self.facts)
        if change is not None and change != MODIFIED and self.run.task == "classification":
            raise ValueError(
                f"cannot resume {self.checkpoint}: {change}, which changes the held-out images"
            )
        if change is not None:
            yield f"resuming with other data: {change}"
        if changes := _list_changes(self.saved, self.run.as_dict()):
            yield f"resuming with other options: {', '.join(changes)}"

    def load(self, accelerator: Accelerator, models: Mapping[str, ModelMixin]) -> None:
        """Restore networks, optimizers and averages from the checkpoint.

        Args:
            accelerator: Accelerator that they were prepared with.
            models: Models of the run by name.

        Raises:
            ValueError: If the checkpoint is damaged, or holds NaN or infinite weights.
        """
        assert self.checkpoint is not None
        load_checkpoint(accelerator, self.checkpoint)
        try:
            check_weights(accelerator, models, self.step)
        except FloatingPointError as error:
            raise ValueError(f"cannot resume {self.checkpoint}: {error}") from error

    def take_folder(self) -> None:
        """Clear the folder, or take it back to the step of the checkpoint."""
        if self.checkpoint is None:
            self.folder.clear()
        replace_text(self.folder.config, self.run.dump())
        drop_lines_after(self.folder.metrics, self.step)
        drop_checkpoints_after(self.folder.checkpoints, self.step)

    def read_log(self) -> list[dict[str, Any]]:
        """Return the lines of `metrics.jsonl` up to the checkpoint."""
        return read_lines(self.folder.metrics)

    def recall_best(self, log: Iterable[Mapping[str, Any]]) -> float:
        """Return the highest validation score so far, −∞ if the model with it is missing."""
        if self.folder.best.is_dir() and self.folder.read_step() > self.step:
            return -math.inf  # the model is from a step that will be repeated
        scores = (line.get(VALIDATION_SCORE) for line in log)
        return max((score for score in scores if score is not None), default=-math.inf)

    def _check_future(self, *, overwrite: bool) -> None:
        """Raise if no step is left, or a later checkpoint would be dropped without `overwrite`."""
        last = self.run.training.steps
        if self.step >= last:
            raise ValueError(
                f"nothing to resume: {self.checkpoint} is after step {self.step} of {last}; "
                "train longer with a larger --training.steps"
            )
        later = later_checkpoints(self.folder.checkpoints, self.step)
        if later and not overwrite:
            raise ValueError(
                f"resuming from step-{self.step} would drop the checkpoint step-{later[-1]}: add "
                "--overwrite to drop it, or copy the run folder"
            )


def check_division(checkpoint: Path) -> None:
    """Raise unless a checkpoint and this launch both use FSDP, or neither does.

    Raises:
        ValueError: If they differ: the formats of their checkpoints do.
    """
    then, now = (checkpoint / f"{FSDP_MODEL_NAME}.bin").exists(), divides_networks()
    if then != now:
        raise ValueError(
            f"the checkpoint {checkpoint} was written {_under(then)} FSDP, and can be resumed only "
            f"{_under(then)} it; this run was launched {_under(now)} it"
        )


def _under(divided: bool) -> str:
    return "under" if divided else "without"


def _check_architecture(saved: Mapping[str, Any], current: Mapping[str, Any], place: Path) -> None:
    """Raise if an option that decides the content or meaning of a checkpoint has changed."""
    then, now = _state_options(saved), _state_options(current)
    for option in sorted(then.keys() | now.keys()):
        old, new = then.get(option), now.get(option)
        if old != new:
            raise ValueError(
                f"cannot resume the run in {place}, which has another architecture: {option} is "
                f"{old} there and {new} here"
            )


def _state_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that decide the content and meaning of a checkpoint, by dotted name."""
    options = {"task": config["task"]}
    for section in ("model", "discriminator"):
        values = config.get(section) or {}
        options |= {f"{section}.{key}": value for key, value in values.items()}
    techniques = config.get("orthogonality") or ()
    options |= {f"{name} in orthogonality": name in techniques for name in WEIGHT_TECHNIQUES}
    divided = "olr" in techniques  # each parameter is then in a parameter group of its own
    options["olr in orthogonality"] = divided
    options["optimizer.kind"] = (config.get("optimizer") or {}).get("kind", "adam")
    options["pre_svd_parameters"] = config.get("pre_svd_parameters") if divided else None
    average = (config.get("training") or {}).get("ema_half_life", 0)
    objective = config.get("objective") or {}
    factor = objective.get("kind") == "factor"
    for name in ("discriminator_dim", "discriminator_depth"):
        options[f"objective.{name}"] = objective.get(name) if factor else None
    regulariser = objective.get("regulariser")
    if config["task"] == "classification":  # they decide which images are held out
        options |= {f"data.{key}": value for key, value in config["data"].items()}
        options["objective.validation"] = objective.get("validation")
    return options | {
        "an average of the weights": bool(average),
        "a recogniser of the regulariser": regulariser == "variation_predictability",
        "a discriminator of codes": factor,
    }


def _list_changes(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """List the options whose values differ, each with the saved and the current value.

    Ignore the run folder, options that only one of the two has, and, with a constant learning rate,
    the number of steps.
    """
    ignored = {"output"}
    if current["optimizer"]["schedule"] == "constant":
        ignored.add("training.steps")
    changes = find_changes(saved, current, ignored)
    return [
        escape_control_characters(f"{option} {cut(old)} → {cut(new)}")
        for option, (old, new) in changes.items()
    ]
