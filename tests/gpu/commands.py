"""Train, resume, evaluate and traverse each task from the command line, in bfloat16.

Each task is a chain of commands, each in a process of its own as a user would run it. The chains
run concurrently, since imports take most of their time.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from .harness import ROOT, Checks, MismatchError, Setting, SkippedError, relative_error, require
from .sessions import TASKS, options, read_losses

# Over one step, rounding has little effect and the state of the optimizer a large one: the measured
# error is below 0.01 with noise of 1e-3 on the gradients, and above 0.6 without the state.
RESUMING_TOLERANCE = 0.1
PATIENCE = {"cuda": 60, "cpu": 600}  # seconds of a command; a CPU may be shared by many


def checks(setting: Setting) -> Checks:
    """Yield the checks of this part."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(4 * len(TASKS)) as pool:
        chains = [Chain(task, setting, Path(folder) / task).start(pool) for task in TASKS]
        for chain in chains:
            yield from chain


class Chain:
    """Chain of commands of one task.

    Args:
        task: Name in `TASKS`.
        setting: Device and size of the checks.
        folder: Run folder.
    """

    def __init__(self, task: str, setting: Setting, folder: Path) -> None:
        self.task, self.setting, self.folder = task, setting, folder
        self.steps = 4 if setting.quick else 50

    def start(self, pool: ThreadPoolExecutor) -> list[tuple[str, Callable[[], str]]]:
        """Start the commands, and return checks that wait for their results."""
        started: list[tuple[str, Callable[[], str]]] = []
        before: Future[str] | None = None
        for command in (self.train, self.resume, self.evaluate, self.traverse):
            before = pool.submit(follow, before, command)
            started.append((f"{self.task}: {command.__name__}", before.result))
        return started

    def train(self) -> str:
        """Train, with a checkpoint before the last step."""
        self._train("--overwrite")
        losses = read_losses(self.task, self.folder)
        last = json.loads((self.folder / "model" / "training.json").read_text())["step"]
        require(last == self.steps + 1, f"a model of step {self.steps + 1}", last)
        return f"losses {losses[0]:.4g} to {losses[-1]:.4g}"

    def resume(self) -> str:
        """Resume from the checkpoint before the last step, and repeat that step."""
        start, whole = self._weights(self.steps), self._weights(self.steps + 1)
        self._train(f"--resume step-{self.steps} --overwrite")
        again = self._weights(self.steps + 1)
        moved = [name for name in whole if not whole[name].equal(start[name])]
        require(bool(moved), "weights that the last step moved", "none")
        errors = [
            relative_error(again[name] - start[name], whole[name] - start[name]) for name in moved
        ]
        error = statistics.median(errors)
        require(
            error <= RESUMING_TOLERANCE,
            f"the same last step up to {RESUMING_TOLERANCE}",
            f"an error of {error:.1e}",
        )
        return f"error of the last step {error:.0e}"

    def evaluate(self) -> str:
        """Score the run."""
        metrics = TASKS[self.task].metrics
        sizes = ["--points", "2000", "--test_points", "1000"]
        if self.setting.quick:
            sizes = ["--points", "200", "--test_points", "100", "--activeness.latents", "4"]
        self._view("evaluate", "--metrics", metrics, *sizes)
        scores = json.loads((self.folder / "scores.json").read_text())["scores"]
        found = {name: scores[name]["score"] for name in metrics.split(",")}
        require(all(s is not None and math.isfinite(s) for s in found.values()), "scores", found)
        return ", ".join(f"{name} {score:.3g}" for name, score in found.items())

    def traverse(self) -> str:
        """Draw the traversals."""
        if not TASKS[self.task].draws:
            raise SkippedError("a classifier has no latents")
        self._view("traverse")
        grids = sorted((self.folder / "traversals").glob("*.png"))
        require(bool(grids), "a grid of traversals", "none")
        for grid in grids:
            low, high = Image.open(grid).convert("L").getextrema()
            require(low < high, f"a picture in {grid.name}", f"one grey, {low}")
        return f"grids: {len(grids)}"

    def _train(self, flags: str) -> None:
        more = [
            "--training.mixed_precision bf16 --orthogonality [nog,olr]",
            f"--training.steps {self.steps + 1} --training.checkpoint_every {self.steps}",
            f"--training.log_every {self.steps // 2}",
            TASKS[self.task].constant_rate,
            flags,
        ]
        run_command("train", options(self.task, self.setting, self.folder, *more), self.setting)

    def _view(self, command: str, *more: str) -> None:
        device = ["--device", str(self.setting.device)]
        run_command(command, [str(self.folder), *more, *device], self.setting)

    def _weights(self, step: int) -> dict[str, Tensor]:
        file = self.folder / "checkpoints" / f"step-{step}" / "model.safetensors"
        tensors = load_file(file)
        return {name: x for name, x in tensors.items() if "running" not in name}


def follow(before: Future[str] | None, command: Callable[[], str]) -> str:
    """Run a command after the one before it, if that has succeeded."""
    if before is not None and before.exception() is not None:
        raise SkippedError("a command before it failed")
    return command()


def run_command(command: str, arguments: Sequence[str], setting: Setting) -> None:
    """Run a command of the toolkit in a process of its own.

    Raises:
        MismatchError: If its exit status is not 0.
    """
    environment = dict(os.environ)
    if setting.device.type == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "disentangle", command, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE[setting.device.type],
        )
    except subprocess.TimeoutExpired as error:
        raise MismatchError(f"expected an end within {error.timeout:.0f} s") from error
    print(done.stdout, done.stderr, sep="\n", flush=True)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise MismatchError(f"expected status 0, got {done.returncode}: {last}")
