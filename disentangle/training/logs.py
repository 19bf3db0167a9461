"""Logging of a run in training: progress bar, `metrics.jsonl` and trackers."""

import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from tqdm import tqdm

from disentangle.runs.metrics_log import _append_lines
from disentangle.training.learner import Terms
from disentangle.training.nonfinite import StepGuard, describe
from disentangle.training.running_means import Tally


class Finding(NamedTuple):
    """Non-finite terms and gradients in any process since the last line.

    Attributes:
        firsts: First step at which each non-finite term or gradient was so, by name.
        streak: Largest number of steps of a network skipped in a row, up to now.
        skipped: Number of skipped steps of all networks.
    """

    firsts: dict[str, float]
    streak: float
    skipped: float


class MetricsLog:
    """Log of the means of terms over the steps since the last line, written on request.

    Terms and notes stay on the device until then: adding one does not synchronise with the host.

    Args:
        accelerator: Accelerator of the run, whose main process writes.
        file: Path of `metrics.jsonl`.
        first: Number of steps made before, 0 for a fresh run.
        last: Last step.
        batch_size: Images per step, over all processes.
        guards: Guards to read with each line.
        max_skipped: Largest number of steps that a guard may skip in a row; None if a non-finite
            value ends the run.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        file: Path,
        *,
        first: int,
        last: int,
        batch_size: int,
        guards: Sequence[StepGuard] = (),
        max_skipped: int | None = None,
    ) -> None:
        self.accelerator, self.file, self.batch_size = accelerator, file, batch_size
        self.guards, self.max_skipped = guards, max_skipped
        self.tally = Tally()
        self.notes: list[tuple[int, Terms]] = []
        self.since = time.perf_counter()
        self.steps = 0
        self.bar = tqdm(
            initial=first,
            total=last,
            unit="step",
            dynamic_ncols=True,
            # On a terminal the bar is redrawn in place; in a file each drawing is a line.
            mininterval=0.1 if sys.stderr.isatty() else 30,
            disable=not accelerator.is_main_process,
        )

    def add(self, step: int, terms: Terms) -> None:
        """Add the terms of one step, each a 0-d tensor."""
        self.tally.add(step, terms)
        self.steps += 1
        self.bar.update()

    def note(self, step: int, values: Terms) -> None:
        """Add values of one step, each a 0-d tensor, to write without averaging over steps."""
        if values:
            self.notes.append((step, values))

    def write(self, step: int) -> dict[str, float]:
        """Write a line with the means of the terms since the last line, and the notes.

        Notes of earlier steps get lines of their own.

        Returns:
            The line, the same in every process.

        Raises:
            FloatingPointError: If a term or a gradient was non-finite or, with `max_skipped`, too
                many steps in a row were skipped; in every process, after the line is written.
        """
        lines, finding = self._fetch([*self.notes, (step, self.tally.means())])
        if self.max_skipped is None:
            lines[step] |= dict.fromkeys(finding.firsts.keys() & lines[step].keys(), math.nan)
        elif self.guards:
            lines[step]["skipped_steps"] = finding.skipped
        seconds, self.since = time.perf_counter() - self.since, time.perf_counter()
        lines[step]["images_per_second"] = self.steps * self.batch_size / seconds
        for number, line in lines.items():
            self.accelerator.log(line, step=number)
        if self.accelerator.is_main_process:
            _append_lines(self.file, lines)
        self._report(finding)
        line = lines[step]
        shown = {name: f"{line[name]:.4g}" for name in line if name.startswith("loss")}
        self.bar.set_postfix(shown, refresh=False)
        self.tally, self.notes, self.steps = Tally(), [], 0
        for guard in self.guards:
            guard.forget()
        return line

    def _report(self, finding: Finding) -> None:
        """Raise if the run must end, and print the number of skipped steps otherwise."""
        if finding.firsts and self.max_skipped is None:
            raise FloatingPointError(describe(finding.firsts))
        if self.max_skipped is not None and finding.streak > self.max_skipped:
            raise FloatingPointError(
                f"{finding.streak:.0f} steps in a row were skipped, more than training.max_skipped "
                f"{self.max_skipped}; {describe(finding.firsts)}"
            )
        if finding.firsts and self.accelerator.is_main_process:
            count = f"skipped optimizer steps: {finding.skipped:.0f}"
            self.bar.write(f"{count}; {describe(finding.firsts)}", file=sys.stderr)

    def _fetch(self, rows: list[tuple[int, Terms]]) -> tuple[dict[int, dict[str, float]], Finding]:
        """Return the values of each step, averaged over processes, and the non-finite ones."""
        values = [value.detach().double() for _, row in rows for value in row.values()]
        alarms = self.tally.firsts()
        counts = [count for guard in self.guards for count in (guard.streak, guard.skipped)]
        local = torch.cat(
            [torch.stack([*values, *alarms.values(), *counts]), *(g.firsts for g in self.guards)]
        )
        # One row per process; the only synchronisation.
        gathered = self.accelerator.gather(local).view(-1, len(local)).cpu()
        found = iter(gathered[:, len(values) :].amin(0).tolist())
        lines = _cut(rows, gathered[:, : len(values)].mean(0).tolist())
        return lines, self._name(found, alarms)

    def _name(self, found: Iterator[float], alarms: Iterable[str]) -> Finding:
        """Name the findings of the tally and the guards."""
        firsts = {name: next(found) for name in alarms}
        counts = [(next(found), next(found)) for _ in self.guards]
        for guard in self.guards:
            network = type(guard.network).__name__
            firsts |= {f"the gradient of {name!r} ({network})": next(found) for name in guard.names}
        return Finding(
            firsts={name: first for name, first in firsts.items() if math.isfinite(first)},
            streak=max((streak for streak, _ in counts), default=0.0),
            skipped=sum(skipped for _, skipped in counts),
        )

    def close(self) -> None:
        """Close the progress bar."""
        self.bar.close()


def _cut(rows: list[tuple[int, Terms]], values: list[float]) -> dict[int, dict[str, float]]:
    """Group the values of all rows, which are in order, by step and name."""
    remaining, lines = iter(values), dict[int, dict[str, float]]()
    for step, row in rows:
        numbers = dict(zip(row, remaining, strict=False))  # takes as many as the row has
        lines[step] = numbers | lines.get(step, {})
    return lines
