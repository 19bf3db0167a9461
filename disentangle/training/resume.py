"""Whether a run can go on from a checkpoint: what must be as it was, and what would be lost."""

from pathlib import Path
from typing import Any

import yaml
from accelerate.utils.constants import FSDP_MODEL_NAME

from disentangle.config import RunConfig, find_differing, flatten
from disentangle.distributed.launch import divides_networks
from disentangle.orthogonality import WEIGHT_TECHNIQUES
from disentangle.output.text import cut, escape_control_characters
from disentangle.runs.checkpoints import later_checkpoints, read_facts, read_step
from disentangle.runs.fingerprint import MODIFIED, Fingerprint
from disentangle.runs.run_folder import RunFolder


def check_architecture(run: RunConfig, folder: RunFolder) -> None:
    """Whether the checkpoints of a saved run are of what this one trains.

    Raises:
        ValueError: With the first option that differs, and its two values.
    """
    then, now = _state_options(folder.read_config()), _state_options(yaml.safe_load(run.dump()))
    for option in sorted(then.keys() | now.keys()):
        old, new = then.get(option), now.get(option)
        if old != new:
            raise ValueError(
                f"the checkpoints in {folder.path} are of another run, which this one cannot go on "
                f"from: {option} is {old} there and {new} here"
            )


def _state_options(config: dict[str, Any]) -> dict[str, Any]:
    """The options that decide what a checkpoint holds and what that means, by dotted name."""
    options = {"task": config["task"]}
    for section in ("model", "discriminator"):
        values = config.get(section) or {}
        options |= {f"{section}.{key}": value for key, value in values.items()}
    techniques = config.get("orthogonality") or ()
    options |= {f"{name} in orthogonality": name in techniques for name in WEIGHT_TECHNIQUES}
    divided = "olr" in techniques  # into a parameter group for each
    options["olr in orthogonality"] = divided
    options["optimizer.kind"] = (config.get("optimizer") or {}).get("kind", "adam")
    options["pre_svd_parameters"] = config.get("pre_svd_parameters") if divided else None
    average = (config.get("training") or {}).get("ema_half_life", 0)
    objective = config.get("objective") or {}
    factor = objective.get("kind") == "factor"
    for name in ("discriminator_dim", "discriminator_depth"):
        options[f"objective.{name}"] = objective.get(name) if factor else None
    regulariser = objective.get("regulariser")
    if config["task"] == "classification":  # other images would be held out, or trained on
        options |= {f"data.{key}": value for key, value in config["data"].items()}
        options["objective.validation"] = objective.get("validation")
    return options | {
        "an average of the weights": bool(average),
        "a recogniser of the regulariser": regulariser == "variation_predictability",
        "a discriminator of codes": factor,
    }


def list_changes(run: RunConfig, folder: RunFolder) -> list[str]:
    """The options of a saved run that have another value in this one, each with both.

    Another place does not count, nor do steps, unless the learning rate depends on their number,
    nor options that one of the two does not have.
    """
    then, now = flatten(folder.read_config()), flatten(yaml.safe_load(run.dump()))
    unimportant = {"output"}
    if run.optimizer.schedule == "constant":
        unimportant.add("training.steps")
    known = (then.keys() & now.keys()) - unimportant
    return [
        escape_control_characters(f"{option} {cut(then[option])} → {cut(now[option])}")
        for option in find_differing([then, now])
        if option in known
    ]


def describe_data_change(run: RunConfig, checkpoint: Path, data: Fingerprint) -> str | None:
    """Describe how the data set differs from the one that a checkpoint was trained on.

    The steps to come then go through it in another order, and see images again.

    Args:
        run: The run.
        checkpoint: Checkpoint to resume from.
        data: Fingerprint of the data set as it is now.

    Raises:
        ValueError: If the run chooses images to validate on, which it may have been trained on.
    """
    change = data.describe_change(read_facts(checkpoint))
    if change is None:
        return None
    if run.task == "classification" and change != MODIFIED:
        raise ValueError(f"cannot resume {checkpoint}: {change}, so others would be held out")
    return f"resuming with other data: {change}"


def check_future(run: RunConfig, checkpoint: Path, *, overwrite: bool) -> None:
    """Whether there are steps left after a checkpoint, and none already made that would be lost.

    Raises:
        ValueError: If the run is over, or a later checkpoint would be dropped unasked.
    """
    step = read_step(checkpoint)
    if step >= run.training.steps:
        raise ValueError(
            f"nothing to resume: {checkpoint} is after step {step} of {run.training.steps}; "
            "a larger --training.steps goes on"
        )
    if (later := later_checkpoints(checkpoint.parent, step)) and not overwrite:
        raise ValueError(
            f"going on from step-{step} would drop the checkpoint step-{later[-1]}: add "
            "--overwrite to drop it, or copy the run folder"
        )


def check_division(checkpoint: Path) -> None:
    """Whether a checkpoint is of networks that were divided over the processes as they are now.

    Raises:
        ValueError: If it is not: the two have different formats.
    """
    then, now = (checkpoint / f"{FSDP_MODEL_NAME}.bin").exists(), divides_networks()
    if then != now:
        raise ValueError(
            f"the checkpoint {checkpoint} was written {_under(then)} FSDP, and can be resumed only "
            f"so; this run was launched {_under(now)} it"
        )


def _under(divided: bool) -> str:
    return "under" if divided else "without"
