"""The computation of metrics of one target."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from disentangle.evaluation.generator_target import GeneratorTarget
from disentangle.evaluation.heat_maps import write_heat_maps
from disentangle.evaluation.processes import Processes, describe_error
from disentangle.evaluation.registry import METRICS
from disentangle.evaluation.representations import Target
from disentangle.losses.active_units import find_active
from disentangle.runs.run_folder import RunFolder
from disentangle.runs.scores_file import FIT, Score, ScoresFile, split_details, write_scores

LIBRARIES = ("disentangle", "torch", "numpy", "scipy", "scikit-learn")


@dataclass
class Job:
    """A target, the metrics to compute of it, and their scores.

    Attributes:
        target: Target to score.
        names: Names of the metrics to compute.
        left_out: Reasons why other metrics are not computed, by their name.
        folder: Folder for `scores.json` and `plots`; None writes nothing.
        saved: Scores of the same model or codes that the folder already holds.
        config: Names of the files that options came from, for the protocols.
        scores: Scores that have been computed, by the name of the metric.
        failed: Reasons why metrics could not be computed after all, by their name.
        plots: Heat maps that were written.
        active: Number of active codes and of all codes; None without codes that have a posterior.
    """

    target: Target
    names: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    folder: RunFolder | None = None
    saved: ScoresFile = field(default_factory=ScoresFile)
    config: Sequence[str] = ()
    scores: dict[str, Score] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    plots: list[Path] = field(default_factory=list)
    active: tuple[int, int] | None = None

    def prepare(self, protocol: Mapping[str, Any]) -> None:
        """Fit an encoder if one is requested, and encode; every process must take part.

        All jobs come before the first `compute`, which may ask for the codes of the others' runs.

        Args:
            protocol: Options of `fit_encoder`.
        """
        target = self.target
        if not isinstance(target, GeneratorTarget):
            return
        processes = target.processes
        if not self._attempt(self.names, target.use_device, processes):
            return
        if target.fits_encoder:
            fit = partial(self._fit, target, protocol)
            if not self._attempt([FIT], fit, processes):
                return
        encoded = [name for name in self.names if "codes" in METRICS[name].inputs.arguments]
        if encoded:
            self._attempt(encoded, partial(self._encode, target), processes)

    def compute(
        self, protocols: Mapping[str, dict[str, Any]], processes: Processes, bar: tqdm
    ) -> None:
        """Compute the scores, and write each; every process must take part.

        Args:
            protocols: Options of each metric.
            processes: Processes that encode and decode.
            bar: Progress bar that counts metrics.
        """
        for name in self.names:
            bar.set_postfix_str(name)
            if name not in self.failed:
                compute = partial(self._compute, name, protocols[name], processes)
                self._attempt([name], compute, processes)
            if processes.is_first:
                self._write_scores()  # what follows may take hours, and be interrupted
            bar.update()
        if processes.is_first and self.folder is not None:
            self.plots = write_heat_maps(self.folder.plots, self.target, self.scores)

    def _attempt(
        self, names: Sequence[str], work: Callable[[], object], processes: Processes
    ) -> bool:
        """Do the work of some metrics, or note why they fail; return True on success."""
        try:
            processes.together(work)
        except Exception as error:
            self.failed.update(dict.fromkeys(names, describe_error(error)))
            return False
        return True

    def _compute(self, name: str, protocol: dict[str, Any], processes: Processes) -> None:
        metric, target = METRICS[name], self.target
        protocol = metric.settle(protocol, target)
        start = time.perf_counter()
        total = None if metric.images is None else metric.images(target, protocol)
        with target.progress.show(name, total):
            arguments = {key: get(target) for key, get in metric.inputs.arguments.items()}
            if not (metric.inputs.shared or processes.is_first):
                return
            result = metric.call(arguments, protocol, target.draws.seed)
        details = asdict(result)
        del details["score"]
        suffixes = (target.suffixes.get(need, "") for need in metric.inputs.needs)
        self.scores["".join([name, *suffixes])] = self._describe(
            float(metric.pick(result, target)),
            metric.inputs.protocol(target) | protocol,
            time.perf_counter() - start,
            details,
        )

    def _encode(self, target: GeneratorTarget) -> None:
        count = target.draws.points + target.draws.test_points
        with target.progress.show("encoding", count):
            points = target.points  # apart, so that no metric's seconds include it
        if points.divergences is not None:
            active = find_active(torch.from_numpy(points.codes).double())
            self.active = int(active.sum()), len(active)

    def _fit(self, target: GeneratorTarget, protocol: Mapping[str, Any]) -> None:
        start = time.perf_counter()
        images = protocol["steps"] * protocol["batch_size"] + protocol["held_out"]
        with target.progress.show("fitting an encoder", images):
            fitted = target.fit_encoder(**protocol)
        details = {"r_squared": fitted.r_squared, "caveat": fitted.caveat}
        self.scores[FIT] = self._describe(
            fitted.score, dict(protocol), time.perf_counter() - start, details
        )

    def _describe(
        self, score: float, protocol: dict[str, Any], seconds: float, details: dict[str, Any]
    ) -> Score:
        stored, too_large = split_details(details)
        if self.config:
            protocol = protocol | {"config": ", ".join(self.config)}
        return Score(
            score=score,
            seed=self.target.draws.seed,
            protocol=protocol,
            seconds=round(seconds, 3),
            versions={name: version(name) for name in LIBRARIES},
            details=stored,
            too_large=too_large,
        )

    def _write_scores(self) -> None:
        if self.folder is not None:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            write_scores(self.folder.scores, self.saved.updated(self.scores))
