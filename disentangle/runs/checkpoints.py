"""Checkpoints that are whole or not there.

`accelerator.save_state` is not atomic and its own rotation deletes first. Here a checkpoint is
written under a temporary name, flushed, given a manifest and renamed; older ones go afterwards.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from accelerate import Accelerator

from disentangle.models.weights_format import FORMAT, FORMAT_KEY
from disentangle.runs.atomic import filling, flush, naming_place, temporary_of
from disentangle.runs.former_checkpoints import converted
from disentangle.runs.run_folder import read_step as read_step_file

MANIFEST = "manifest.json"
NONE: Mapping[str, Any] = MappingProxyType({})


def save_checkpoint(
    accelerator: Accelerator, folder: Path, step: int, keep: int, facts: Mapping[str, Any] = NONE
) -> None:
    """Writes the checkpoint `folder/step-N` and removes all whole ones but the newest `keep`.

    Every process takes part; the first one writes what they share. Facts about the data are kept
    beside, for `read_facts`.

    Raises:
        OSError: If it cannot be written; the older ones are still there.
    """
    temporary = temporary_of(folder / f"step-{step}")
    leads = accelerator.is_main_process
    with filling(temporary) if leads else nullcontext():
        accelerator.wait_for_everyone()
        with naming_place(temporary):
            accelerator.save_state(str(temporary))
        accelerator.wait_for_everyone()
        if leads:
            _seal(temporary, {"step": step, FORMAT_KEY: FORMAT, **facts})
    if leads:
        _publish(temporary, folder / f"step-{step}")
        whole = [s for s in sorted(_steps(folder)) if is_whole(folder / f"step-{s}")]
        for old in whole[:-keep]:
            _remove(folder / f"step-{old}")
    accelerator.wait_for_everyone()


def find_checkpoint(folder: Path, which: str) -> Path:
    """The checkpoint that `latest` or `step-N` names.

    `latest` passes over a checkpoint whose files are not those of its manifest.

    Raises:
        ValueError: If there is no such checkpoint, or it is not whole.
    """
    steps = sorted(_steps(folder), reverse=True)
    if which == "latest":
        for step in steps:
            if is_whole(folder / f"step-{step}"):
                return folder / f"step-{step}"
        raise ValueError(f"there is no whole checkpoint in {folder}")
    if (match := re.fullmatch(r"(?:step-)?(\d+)", which)) is None:
        raise ValueError(f"--resume takes 'latest' or 'step-N', got {which!r}")
    if (step := int(match[1])) not in steps:
        known = ", ".join(f"step-{step}" for step in steps) or "none"
        raise ValueError(f"there is no checkpoint step-{step} in {folder}; found: {known}")
    if not is_whole(folder / f"step-{step}"):
        raise ValueError(f"the checkpoint {folder / f'step-{step}'} is not whole")
    return folder / f"step-{step}"


def load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> None:
    """Restores what `save_checkpoint` saved, in this version or an older one.

    Raises:
        ValueError: If a file is damaged, or of other networks or optimizers.
    """
    try:
        with _no_code(), converted(accelerator, checkpoint, read_facts(checkpoint)) as folder:
            accelerator.load_state(str(folder))
    except Exception as error:  # each kind of damage raises its own
        reason = " ".join(str(error).split())
        raise ValueError(f"the checkpoint {checkpoint} cannot be loaded: {reason}") from error


@contextmanager
def _no_code() -> Iterator[None]:
    """Lets torch unpickle nothing but tensors and plain values.

    Accelerate asks for more where an object has registered for checkpoints, such as an average of
    weights: the file could run anything.
    """
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def later_checkpoints(folder: Path, step: int) -> list[int]:
    """The steps of the whole checkpoints after a step, in order."""
    later = sorted(s for s in _steps(folder) if s > step)
    return [s for s in later if is_whole(folder / f"step-{s}")]


def torn_checkpoints(folder: Path, step: int) -> list[int]:
    """The steps after a step whose checkpoints were not finished, or are damaged, in order."""
    begun = {*_steps(folder), *_steps(folder, r"\.step-{}\.tmp")}
    return sorted(s for s in begun if s > step and not is_whole(folder / f"step-{s}"))


def drop_checkpoints_after(folder: Path, step: int) -> None:
    """Removes the checkpoints of steps that a resumed run will make again, and unfinished ones."""
    for unfinished in folder.glob(".step-*.tmp"):
        shutil.rmtree(unfinished)
    for later in later_checkpoints(folder, step):
        _remove(folder / f"step-{later}")


def _remove(checkpoint: Path) -> None:
    """Removes a checkpoint at once, not file by file; of one that is linked to, the link."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
        return
    temporary = temporary_of(checkpoint)
    checkpoint.rename(temporary)
    shutil.rmtree(temporary)


def read_step(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return read_step_file(checkpoint / MANIFEST)


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """The step of a whole checkpoint, the sizes of its files, and the facts that it was given."""
    return json.loads((checkpoint / MANIFEST).read_text())


def is_whole(checkpoint: Path) -> bool:
    """Return True if a checkpoint holds every file of its manifest, in full length."""
    try:
        sizes = json.loads((checkpoint / MANIFEST).read_text())["sizes"]
        read_step(checkpoint)
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return False


def _seal(temporary: Path, facts: dict[str, Any]) -> None:
    files = sorted(file for file in temporary.rglob("*") if file.is_file())
    sizes = {str(file.relative_to(temporary)): file.stat().st_size for file in files}
    manifest = temporary / MANIFEST
    manifest.write_text(json.dumps(facts | {"sizes": sizes}, indent=1))
    for file in [*files, manifest]:
        flush(file)


def _publish(temporary: Path, checkpoint: Path) -> None:
    shutil.rmtree(checkpoint, ignore_errors=True)  # a torn one of the same step
    os.replace(temporary, checkpoint)
    flush(checkpoint.parent)


def _steps(folder: Path, pattern: str = "step-{}") -> list[int]:
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    pattern = pattern.format(r"(0|[1-9]\d*)")
    return [int(match[1]) for name in names if (match := re.fullmatch(pattern, name))]
