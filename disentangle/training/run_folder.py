"""The folder of a run: what lies where, and who may write into it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from diffusers import ModelMixin

from disentangle.models import load_model

CONTENTS = (
    "config.yaml",
    "metrics.jsonl",
    "model",
    "ema",
    "discriminator",
    "checkpoints",
    "samples",
    "logs",
    "traversals",
    "scores.json",
)


class RunFolder:
    """The folder of one run.

    Attributes:
        path: The folder.
        config: `config.yaml`, the run's whole configuration; what makes a folder a run.
        metrics: `metrics.jsonl`, one line per logged step.
        checkpoints: Folders `step-N`, to resume from.
        samples: Sheets of samples.
        traversals: Where `disentangle traverse` writes.
        scores: Where `disentangle evaluate` writes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.traversals = self.path / "traversals"
        self.scores = self.path / "scores.json"

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """An existing run.

        Raises:
            FileNotFoundError: If the folder does not exist.
            ValueError: If it is not the folder of a run.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise FileNotFoundError(f"there is no run folder {folder.path}")
        if not folder.config.is_file():
            raise ValueError(f"{folder.path} is not a run folder: it holds no config.yaml")
        return folder

    def check_claim(self, *, resume: bool, overwrite: bool) -> None:
        """Whether a run may be written here; nothing is touched.

        Raises:
            ValueError: If something is here and it was not said what is to become of it, or if
                nothing is here and it was to be resumed.
        """
        if resume and overwrite:
            raise ValueError("--resume goes on with a run and --overwrite replaces it: choose one")
        holds_run = self.config.is_file()
        if resume and not holds_run:
            raise ValueError(f"nothing to resume: {self.path} is not a run folder")
        if holds_run and not (resume or overwrite):
            raise ValueError(
                f"{self.path} already holds a run: add --resume to go on with it, --overwrite to "
                "replace it, or choose another --output"
            )
        if (
            self.path.exists()
            and not holds_run
            and (not self.path.is_dir() or any(self.path.iterdir()))
        ):
            raise ValueError(f"{self.path} exists and is not a run folder: choose another --output")

    def clear(self) -> None:
        """Removes what a run writes, and nothing else that may lie in the folder."""
        for name in CONTENTS:
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)

    def load_generator(self) -> ModelMixin:
        """The averaged weights if the run keeps an average, else the trained ones.

        Raises:
            FileNotFoundError: If the run has not written a model yet.
        """
        averaged = self.path / "ema"
        return load_model(averaged if averaged.is_dir() else self.path / "model")

    def export(self, name: str, model: ModelMixin) -> None:
        """Writes a model to the folder `name`, each of its files whole or not at all."""
        replace_files(self.path / name, model.save_pretrained)


def replace_files(folder: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary folder, then moves each file to its place atomically."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    folder.mkdir(exist_ok=True)
    for file in temporary.iterdir():
        flush(file)
        os.replace(file, folder / file.name)
    temporary.rmdir()
    flush(folder)


def flush(path: Path) -> None:
    """Returns when the file, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
