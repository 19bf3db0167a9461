"""What a run reports while it trains: a progress bar, `metrics.jsonl` and the trackers."""

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
    """What was not finite since the last line, in any process.

    Attributes:
        firsts: The first step at which a term or a gradient was not finite, of those that were not.
        streak: How many steps of a network in a row were not made, up to now.
        skipped: How many steps of all networks were not made.
    """

    firsts: dict[str, float]
    streak: float
    skipped: float


class MetricsLog:
    """Averages the terms of the steps since the last line, and writes a line when asked.

    Terms and notes stay on the device until then: adding one costs no host synchronisation.

    Args:
        accelerator: Averages over processes; its first process writes.
        file: `metrics.jsonl`.
        first: The step after which training goes on, 0 for a fresh run.
        last: The last step.
        batch_size: Images per step, over all processes.
        guards: Whose findings are read with each line.
        max_skipped: How many steps in a row they may skip; `None` if the first one is to end the
            run.
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
        """Takes in the terms of one step, each a 0-d tensor."""
        self.tally.add(step, terms)
        self.steps += 1
        self.bar.update()

    def note(self, step: int, values: Terms) -> None:
        """Takes in values of one step, each a 0-d tensor, that are to be written as they are."""
        if values:
            self.notes.append((step, values))

    def write(self, step: int) -> dict[str, float]:
        """Writes a line with the means of the terms since the last, and the notes of that time.

        Notes of earlier steps get a line of their own.

        Returns:
            The line, in every process alike.

        Raises:
            FloatingPointError: If a term or a gradient was not finite, or that in too many steps in
                a row; the line is written all the same. In every process alike.
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
        """Ends the run, or says what was skipped."""
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
        """The values of each step as numbers, the mean over processes, and what went wrong."""
        values = [value.detach().double() for _, row in rows for value in row.values()]
        alarms = self.tally.firsts()
        counts = [count for guard in self.guards for count in (guard.streak, guard.skipped)]
        local = torch.cat(
            [torch.stack([*values, *alarms.values(), *counts]), *(g.firsts for g in self.guards)]
        )
        # One row per process; the one synchronisation.
        gathered = self.accelerator.gather(local).view(-1, len(local)).cpu()
        found = iter(gathered[:, len(values) :].amin(0).tolist())
        lines = _cut(rows, gathered[:, : len(values)].mean(0).tolist())
        return lines, self._name(found, alarms)

    def _name(self, found: Iterator[float], alarms: Iterable[str]) -> Finding:
        """What the guards and the tally have found, by name."""
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
        """Ends the progress bar."""
        self.bar.close()


def _cut(rows: list[tuple[int, Terms]], values: list[float]) -> dict[int, dict[str, float]]:
    """The values, which are those of all rows in order, by step and name."""
    remaining, lines = iter(values), dict[int, dict[str, float]]()
    for step, row in rows:
        numbers = dict(zip(row, remaining, strict=False))  # takes as many as the row has
        lines[step] = numbers | lines.get(step, {})
    return lines
