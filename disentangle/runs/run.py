"""A saved run, opened from its folder."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from diffusers import ModelMixin

from disentangle.config import RunConfig
from disentangle.config.parse import parse_run
from disentangle.models import load_model
from disentangle.runs.metrics_log import read_lines
from disentangle.runs.run_folder import RunFolder
from disentangle.runs.scores_file import Score, ScoresFile, read_scores


class Run:
    """A saved run; each of its files is read when it is first needed, and once.

    Args:
        path: The run's folder; see `Run.open` for one that must exist.
        name: Name in tables and messages; by default the path.

    Attributes:
        folder: Paths of the files.
        name: Name in tables and messages.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        self.folder = RunFolder(path)
        self.name = str(Path(path)) if name is None else name

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Return an existing run.

        Raises:
            FileNotFoundError: If the folder does not exist.
            ValueError: If it is not the folder of a run.
        """
        run = cls(path)
        if not run.folder.path.is_dir():
            raise FileNotFoundError(f"there is no run folder {run.folder.path}")
        _ = run.raw_config
        return run

    @cached_property
    def raw_config(self) -> dict[str, Any]:
        """The configuration as it stands in the file; errors as in `RunFolder.read_config`."""
        return self.folder.read_config()

    @cached_property
    def config(self) -> RunConfig:
        """The configuration; `ValueError` if an option is unknown or out of range."""
        return parse_run(["--config", str(self.folder.config)])[0]

    @property
    def classifies(self) -> bool:
        """True for a run of the task `classification`."""
        return self.raw_config["task"] == "classification"

    @cached_property
    def scores_file(self) -> ScoresFile:
        """Content of `scores.json`, empty if the run was not evaluated; errors as `read_scores`."""
        file = self.folder.scores
        return read_scores(file) if file.is_file() else ScoresFile()

    @property
    def scores(self) -> Mapping[str, Score]:
        """Scores by the name of the metric, none if the run was not evaluated."""
        return self.scores_file.scores

    @property
    def step(self) -> int | None:
        """The training step that was scored."""
        return self.scores_file.step

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Lines of `metrics.jsonl`, none if the run was not trained."""
        return read_lines(self.folder.metrics) if self.folder.metrics.is_file() else []

    @cached_property
    def model(self) -> ModelMixin:
        """The best model if the run chooses one, or the EMA if it keeps one, or the last one.

        Raises:
            FileNotFoundError: If the run has not written a model yet.
        """
        return load_model(self.folder.final)

    @property
    def generator(self) -> ModelMixin:
        """The model of a run of another task than `classification`.

        Raises:
            FileNotFoundError: If the run has not written a model yet.
            ValueError: If the run has no generator.
        """
        if self.classifies:
            raise ValueError(
                f"{self.folder.path} is a run of the task classification: it has no generator"
            )
        return self.model

    def check_trained(self) -> None:
        """Raise `ValueError` if there is no `metrics.jsonl`."""
        if not self.folder.metrics.is_file():
            raise ValueError(
                f"{self.folder.path} has no {self.folder.metrics.name}: it has not been trained"
            )

    def check_evaluated(self) -> None:
        """Raise `ValueError` if there is no `scores.json`."""
        if not self.folder.scores.is_file():
            raise ValueError(
                f"{self.folder.path} has no {self.folder.scores.name}: run `disentangle evaluate` "
                "first"
            )


def open_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Open runs, each once however often it is named; errors as in `Run.open`."""
    return [Run.open(path) for path in {Path(path).resolve(): path for path in paths}.values()]
