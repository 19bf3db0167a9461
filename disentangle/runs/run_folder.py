"""The folder of a run: its files, and who may write them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from diffusers import ModelMixin

from disentangle.config import fill_defaults
from disentangle.config.choices import current_name
from disentangle.config.yaml_files import read_yaml
from disentangle.output.files import check_file, check_folder
from disentangle.runs.atomic import replace_files, temporary_of
from disentangle.runs.lock import holding

PATIENCE = 5.0  # seconds; the workers of a run that was killed hold its folder until they end too
STEP_FILE = "training.json"  # beside the weights of a model
SECTIONS = ("model", "data", "discriminator", "objective", "optimizer", "training")
MODELS = ("model", "ema", "best", "discriminator")
CONTENTS = (  # beside the configuration
    "starts",
    "starts.json",
    "metrics.jsonl",
    *MODELS,
    "checkpoints",
    "samples",
    "logs",
    "traversals",
    "plots",
    "scores.json",
)


class RunFolder:
    """The folder of one run.

    Attributes:
        path: Path of the folder, without `..`, which would mean another one once it is made.
        config: `config.yaml`, the run's whole configuration; it makes a folder a run.
        metrics: `metrics.jsonl`, one line per logged step.
        starts: Runs from several seeds, until the best of them is kept.
        choice: `starts.json`, the final losses of these seeds, and the one that was kept.
        checkpoints: Folders `step-N`, to resume from.
        best: Model that the validation chose, if the run validates.
        samples: Sheets of samples.
        traversals: Pictures of `disentangle traverse`.
        plots: Figures of `disentangle evaluate` and the commands that plot.
        scores: `scores.json` of `disentangle evaluate`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if ".." in self.path.parts:
            self.path = self.path.resolve()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.starts = self.path / "starts"
        self.choice = self.path / "starts.json"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.path / "best"
        self.samples = self.path / "samples"
        self.traversals = self.path / "traversals"
        self.plots = self.path / "plots"
        self.scores = self.path / "scores.json"

    def read_config(self) -> dict[str, Any]:
        """Return the saved configuration, with defaults of network options newer than it.

        Raises:
            ValueError: If there is none, or it is not that of a run.
        """
        if not self.config.is_file():
            raise ValueError(f"{self.path} is not a run folder: it holds no config.yaml")
        try:
            config = read_yaml(self.config)
            config["task"] = current_name(config["task"])
        except (ValueError, KeyError, TypeError):
            config = {}
        if not _is_run(config):
            raise ValueError(
                f"{self.path} is not a run folder: its config.yaml is not that of a run"
            )
        return fill_defaults(config)

    def check_claim(self, *, resume: bool, overwrite: bool) -> dict[str, Any]:
        """Raise unless a run may be written here; nothing is touched.

        Returns:
            The configuration of the run that is here, as `read_config` gives it; empty if none is.

        Raises:
            ValueError: If something is here and it was not said what is to become of it, if nothing
                is here and it was to be resumed, or if no folder can be made here.
            BlockingIOError: If another process trains here.
        """
        try:
            saved = self.read_config()
        except ValueError as error:
            if resume:
                raise ValueError(f"nothing to resume: {error}") from error
            self._check_empty()
            return {}
        if not (resume or overwrite):
            raise ValueError(
                f"{self.path} already holds a run: add --resume to continue it, --overwrite to "
                "replace it, or choose another --output"
            )
        with holding(self.path, alone=False, patience=PATIENCE):
            pass
        if resume:
            self._check_kinds()
        return saved

    def _check_kinds(self) -> None:
        """Raise, before any training, unless files are files and folders are folders.

        The folder of a model must not be a link, since the files behind it would be replaced.
        """
        for entry in (self.path / name for name in CONTENTS):
            is_right, kind = (
                (entry.is_file(), "file") if entry.suffix else (entry.is_dir(), "folder")
            )
            if os.path.lexists(entry) and not is_right:
                raise ValueError(f"cannot resume: {entry} must be a {kind}")
            if entry.name in MODELS and entry.is_symlink():
                raise ValueError(f"cannot resume: {entry} must not be a link")

    def _check_empty(self) -> None:
        """Raise unless nothing is here, or an empty folder, and a folder can be made."""
        if os.path.lexists(self.path) and not self._is_empty():
            raise ValueError(f"{self.path} exists and is not a run folder: choose another --output")
        check_folder(self.path)

    def _is_empty(self) -> bool:
        """Return True for a folder that is empty but for the remains of a start that was killed."""
        begun = temporary_of(self.config)
        return self.path.is_dir() and all(entry == begun for entry in self.path.iterdir())

    def check_writable(self) -> None:
        """Raise `ValueError` unless scores and plots can be written."""
        check_folder(self.plots)
        check_folder(self.path)  # `scores.json` is replaced by a new file
        check_file(self.scores, overwrite=True, new_folder=True)

    def clear(self) -> None:
        """Remove the files of a run, and nothing else that may lie in the folder.

        The configuration stays until it is replaced: if clearing is interrupted, the folder is
        still that of a run.
        """
        for name in CONTENTS:
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)

    @property
    def final(self) -> Path:
        """Folder of the final model: the best if the run chooses one, or the EMA, or the last."""
        folders = [self.path / name for name in ("best", "ema", "model")]
        return next((folder for folder in folders if folder.is_dir()), folders[-1])

    def export(self, name: str, model: ModelMixin, step: int) -> None:
        """Write a model and its step to the folder `name`, each file whole or not at all."""

        def write(folder: Path) -> None:
            model.save_pretrained(folder)
            (folder / STEP_FILE).write_text(json.dumps({"step": step}), encoding="utf-8")

        replace_files(self.path / name, write)

    def read_step(self) -> int:
        """Return the step after which the final model was written; errors as in `read_step`."""
        return read_step(self.final / STEP_FILE)


def read_step(file: Path) -> int:
    """Return the `step` that a file of JSON holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no step.
    """
    try:
        step = json.loads(file.read_text(encoding="utf-8"))["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        step = None
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**63:
        raise ValueError(f"{file} must hold the step after which it was written")
    return step


def _is_run(config: dict[str, Any]) -> bool:
    """Return True for a configuration with the parts of a run, each of its kind."""
    mappings = (config.get(name, {}) for name in SECTIONS)
    techniques = config.get("orthogonality", [])
    return (
        config.keys() >= {"task", "model", "data", "output"}
        and isinstance(config["task"], str)
        and all(isinstance(value, dict) for value in mappings)
        and isinstance(techniques, list)
        and all(isinstance(name, str) for name in techniques)
    )
