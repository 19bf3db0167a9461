"""What a run reports while it trains: a progress bar, `metrics.jsonl` and the trackers."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from disentangle.training.learner import Terms
from disentangle.training.run_folder import replace_text


class MetricsLog:
    """Averages the terms of the steps since the last line, and writes a line when asked.

    Terms and notes stay on the device until then: adding one costs no host synchronisation.

    Args:
        accelerator: Averages over processes; its first process writes.
        file: `metrics.jsonl`.
        first: The step after which training goes on, 0 for a fresh run.
        last: The last step.
        batch_size: Images per step, over all processes.
    """

    def __init__(
        self, accelerator: Accelerator, file: Path, *, first: int, last: int, batch_size: int
    ) -> None:
        self.accelerator, self.file, self.batch_size = accelerator, file, batch_size
        self.totals: Terms = {}
        self.counts: dict[str, int] = {}
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

    def add(self, terms: Terms) -> None:
        """Takes in the terms of one step, each a 0-d tensor."""
        for name, term in terms.items():
            self.totals[name] = self.totals.get(name, 0) + term
            self.counts[name] = self.counts.get(name, 0) + 1
        self.steps += 1
        self.bar.update()

    def note(self, step: int, values: Terms) -> None:
        """Takes in values of one step, each a 0-d tensor, that are to be written as they are."""
        if values:
            self.notes.append((step, values))

    def write(self, step: int) -> None:
        """Writes a line with the means of the terms since the last, and the notes of that time.

        Notes of earlier steps get a line of their own.

        Raises:
            FloatingPointError: If a term is NaN or infinite; the line is written all the same.
        """
        means = {name: total / self.counts[name] for name, total in self.totals.items()}
        lines = self._fetch([*self.notes, (step, means)])
        seconds, self.since = time.perf_counter() - self.since, time.perf_counter()
        lines[step]["images_per_second"] = self.steps * self.batch_size / seconds
        for number, line in lines.items():
            self.accelerator.log(line, step=number)
        if self.accelerator.is_main_process:
            _append_lines(self.file, lines)
        line = lines[step]
        wrong = [name for name in self.totals if not math.isfinite(line[name])]
        if wrong:
            since = step - self.steps + 1
            raise FloatingPointError(f"{wrong[0]} is {line[wrong[0]]} in the steps {since}–{step}")
        shown = {name: f"{line[name]:.4g}" for name in line if name.startswith("loss")}
        self.bar.set_postfix(shown, refresh=False)
        self.totals, self.counts, self.notes, self.steps = {}, {}, [], 0

    def _fetch(self, rows: list[tuple[int, Terms]]) -> dict[int, dict[str, float]]:
        """The values of each step as numbers, the mean over processes."""
        stacked = torch.stack(
            [value.detach().double() for _, row in rows for value in row.values()]
        )
        values = iter(self.accelerator.reduce(stacked, "mean").tolist())  # the one synchronisation
        lines: dict[int, dict[str, float]] = {}
        for step, row in rows:
            numbers = dict(zip(row, values, strict=False))  # takes as many as the row has
            lines[step] = numbers | lines.get(step, {})
        return lines

    def close(self) -> None:
        """Ends the progress bar."""
        self.bar.close()


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, without any that a crash, or a run in progress, has torn.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    lines = map(_parse, file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line is not None]


def drop_lines_after(file: Path, step: int) -> None:
    """Removes the lines of steps that a resumed run will make, and write, again."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    replace_text(file, "".join(kept))


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that is torn."""
    parsed = _parse(line)
    return math.inf if parsed is None else parsed["step"]


def _parse(line: str) -> dict[str, Any] | None:
    """A line; `None` for one that is torn."""
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) and isinstance(parsed.get("step"), int) else None


def _append_lines(file: Path, lines: dict[int, dict[str, float]]) -> None:
    """Appends a line for each step; a number that is not finite, which JSON lacks, as null."""
    with file.open("a", encoding="utf-8") as stream:
        for step, line in lines.items():
            row = {key: value if math.isfinite(value) else None for key, value in line.items()}
            stream.write(json.dumps({"step": step, **row}) + "\n")
