"""What a run reports while it trains: a progress bar, `metrics.jsonl` and the trackers."""

import json
import math
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from disentangle.training.learner import Terms
from disentangle.training.run_folder import replace_text


class MetricsLog:
    """Averages the terms of the steps since the last line, and writes a line when asked.

    The terms stay on the device until then: adding one costs no host synchronisation.

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

    def write(self, step: int, more: Terms) -> None:
        """Writes one line: the means of the terms since the last line, and `more` as it is.

        Raises:
            FloatingPointError: If a term is NaN or infinite; the line is written all the same.
        """
        means = {name: total / self.counts[name] for name, total in self.totals.items()} | more
        stacked = torch.stack([value.detach().double() for value in means.values()])
        values = self.accelerator.reduce(stacked, "mean").tolist()  # the one synchronisation
        seconds, self.since = time.perf_counter() - self.since, time.perf_counter()
        line = dict(zip(means, values, strict=True))
        line["images_per_second"] = self.steps * self.batch_size / seconds
        self.accelerator.log(line, step=step)
        if self.accelerator.is_main_process:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **line}) + "\n")
        wrong = [name for name in self.totals if not math.isfinite(line[name])]
        if wrong:
            since = step - self.steps + 1
            raise FloatingPointError(f"{wrong[0]} is {line[wrong[0]]} in the steps {since}–{step}")
        shown = {name: f"{line[name]:.4g}" for name in line if name.startswith("loss")}
        self.bar.set_postfix(shown, refresh=False)
        self.totals, self.counts, self.steps = {}, {}, 0

    def close(self) -> None:
        """Ends the progress bar."""
        self.bar.close()


def drop_lines_after(file: Path, step: int) -> None:
    """Removes the lines of steps that a resumed run will make, and write, again."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    replace_text(file, "".join(kept))


def _step_of(line: str) -> float:
    """The step of a line; infinity for one that a crash has torn."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
