"""One subject, what is to be computed of it, and where that goes."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from disentangle.scoring.heat_maps import write_heat_maps
from disentangle.scoring.processes import Processes
from disentangle.scoring.registry import METRICS
from disentangle.scoring.report import library_versions, merge_report, write_report
from disentangle.scoring.subject import RunSubject, Subject
from disentangle.training.run_folder import RunFolder

FIT = "fit_encoder"  # how the fit of an encoder is named among the scores


@dataclass
class Job:
    """A subject, what to compute of it and where to put that.

    Attributes:
        subject: What is scored.
        names: Of the metrics to compute.
        left_out: Why other metrics cannot be computed, by their name.
        step: Training step of the model.
        folder: For `scores.json` and `plots`; None writes nothing.
        old: What `scores.json` holds.
        scores: What has been computed, by the metric's name.
        failed: Why a metric could not be computed after all, by its name.
        plots: The heat maps that were written.
    """

    subject: Subject
    names: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    step: int | None = None
    folder: RunFolder | None = None
    old: dict[str, Any] | None = None
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    plots: list[Path] = field(default_factory=list)

    def compute(
        self, protocols: Mapping[str, dict[str, Any]], processes: Processes, bar: tqdm
    ) -> None:
        """Computes the scores; every process must take part.

        Args:
            protocols: The options of each metric, and of `fit_encoder`.
            processes: Which encode and decode.
            bar: Counts metrics.
        """
        subject = self.subject
        subject.use_device()
        if isinstance(subject, RunSubject) and subject.fits_encoder:
            bar.set_postfix_str("fitting an encoder")
            self._fit(subject, protocols[FIT])
        if any("codes" in METRICS[name].inputs.arguments for name in self.names):
            with subject.progress("encoding", subject.draws.points + subject.draws.test_points):
                _ = subject.points  # apart, so that no metric's seconds include it
        for name in self.names:
            bar.set_postfix_str(name)
            try:
                self._compute(name, protocols[name], processes)
            except ValueError as error:
                self.failed[name] = str(error)
            bar.update()

    def _compute(self, name: str, protocol: dict[str, Any], processes: Processes) -> None:
        metric, subject = METRICS[name], self.subject
        start = time.perf_counter()
        total = None if metric.images is None else metric.images(subject, protocol)
        with subject.progress(name, total):
            arguments = {key: get(subject) for key, get in metric.inputs.arguments.items()}
            if not (metric.inputs.shared or processes.is_first):
                return
            result = metric.call(arguments, protocol, subject.draws.seed)
        details = asdict(result)
        del details["score"]
        self.scores[name + subject.suffix] = self._describe(
            float(metric.pick(result, subject)),
            metric.inputs.protocol(subject) | protocol,
            time.perf_counter() - start,
            details,
        )

    def _fit(self, subject: RunSubject, protocol: dict[str, Any]) -> None:
        start = time.perf_counter()
        fitted = subject.fit_encoder(**protocol)
        details = {"r_squared": fitted.r_squared}
        self.scores[FIT] = self._describe(
            fitted.score, protocol, time.perf_counter() - start, details
        )

    def _describe(
        self, score: float, protocol: dict[str, Any], seconds: float, details: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "score": score,
            "seed": self.subject.draws.seed,
            "protocol": protocol,
            "seconds": round(seconds, 3),
            "versions": library_versions(),
            "details": details,
        }

    def write(self) -> None:
        """Writes `scores.json` and the heat maps."""
        if self.folder is None:
            return
        self.folder.path.mkdir(parents=True, exist_ok=True)
        write_report(self.folder.scores, merge_report(self.old, self.step, self.scores))
        self.plots = write_heat_maps(self.folder.plots, self.subject, self.scores)
