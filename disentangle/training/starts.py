"""Several starts of a run from different seeds, of which the one with the lowest loss is kept.

Some seeds of a VAE end in a worse optimum than others. Its final training loss tells them apart, as
far as it can be told without labels.
"""

import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from io import StringIO
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from disentangle.config import RunConfig, find_changes
from disentangle.runs.atomic import replace_text, temporary_of
from disentangle.runs.checkpoints import later_checkpoints
from disentangle.runs.lock import holding
from disentangle.runs.metrics_log import read_lines
from disentangle.runs.run_folder import CONTENTS, RunFolder
from disentangle.training.signals import note_signals
from disentangle.training.trainer import Trainer

ABREAST = 2  # starts that are trained at a time on a CPU, if it has the cores
PATIENCE = 0.2  # seconds between two checks for signals

Command = Callable[[Sequence[str]], int]


def derive_seed(seed: int, start: int) -> int:
    """Return the seed of a start; the first, number 0, has the seed of the run.

    Examples:
        >>> derive_seed(7, 0), derive_seed(7, 1)
        (7, 3618983171)
    """
    if start == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(start,)).generate_state(1)[0])


def final_loss(lines: Iterable[Mapping[str, Any]], steps: int) -> float:
    """Return the mean loss of the lines of the last eighth of the steps; infinity without one.

    Args:
        lines: Lines of `metrics.jsonl`.
        steps: Number of steps of the run.

    Examples:
        >>> final_loss([{"step": k, "loss": 80.0 - k} for k in (50, 70, 75, 80)], steps=80)
        2.5
    """
    losses = [line.get("loss") for line in lines if line["step"] > 7 / 8 * steps]
    finite = [loss for loss in losses if loss is not None]
    return float(np.mean(finite)) if finite else math.inf


@dataclass(frozen=True)
class Start:
    """A start: a whole run in a folder below that of the run.

    Attributes:
        number: Number of the start, from 1.
        run: The run, with one start and its own folder and seed.
    """

    number: int
    run: RunConfig

    @property
    def folder(self) -> RunFolder:
        """Folder of the start."""
        return RunFolder(self.run.output)

    @property
    def is_finished(self) -> bool:
        """True if its last step has been made, and saved."""
        return bool(later_checkpoints(self.folder.checkpoints, self.run.training.steps - 1))

    @property
    def is_begun(self) -> bool:
        """True if it can be resumed."""
        return bool(later_checkpoints(self.folder.checkpoints, 0))

    @property
    def loss(self) -> float:
        """Final loss; see `final_loss`."""
        return final_loss(read_lines(self.folder.metrics), self.run.training.steps)

    def __str__(self) -> str:
        return f"start {self.number} (seed {self.run.seed})"


class Starts:
    """The starts of a run, each to be trained in a process of its own.

    While they are trained, the run folder holds the configuration and `starts/1`, `starts/2`, …; in
    the end it holds what the best of them wrote, its seed in the configuration, and `starts.json`
    with the final loss of every seed. The constructor makes all checks and writes nothing.

    Args:
        run: The run, with `training.starts` above 1.
        resuming: Continue the starts in the folder.
        overwrite: Replace a run that is in the folder.

    Raises:
        ValueError: If the run cannot be trained as it is described.
        FileNotFoundError: If the data are missing.
    """

    def __init__(self, run: RunConfig, *, resuming: bool, overwrite: bool) -> None:
        self.run, self.resuming = run, resuming
        self.folder = RunFolder(run.output)
        if not resuming:
            self.folder.check_claim(resume=False, overwrite=overwrite)
        self.starts = [
            Start(number, self._describe(number)) for number in range(1, run.training.starts + 1)
        ]
        self.waiting = [s for s in self.starts if not (resuming and s.is_finished)]
        self.abreast = 1
        if self.waiting:
            device = self._check(self.waiting[0])
            threads = run.training.cpu_threads or 1
            if device == "cpu" and _count_cores() >= ABREAST * threads:
                self.abreast = ABREAST

    def _describe(self, number: int) -> RunConfig:
        training = replace(self.run.training, starts=1)
        return replace(
            self.run,
            output=self.folder.starts / str(number),
            seed=derive_seed(self.run.seed, number - 1),
            training=training,
        )

    def _check(self, start: Start) -> str:
        """Make the checks of a start, and return the type of its device."""
        with redirect_stdout(StringIO()):  # the start itself will print it
            resume = "latest" if self.resuming and start.is_begun else None
            return Trainer(start.run, resume=resume, overwrite=True).accelerator.device.type

    def train(self, command: Command) -> int | None:
        """Train the starts, and keep the best.

        Args:
            command: `disentangle train`, which takes the arguments of the command line and returns
                the exit status. A module-level function, since other processes call it.

        Returns:
            The number of the signal, if one ended the run early.

        Raises:
            BlockingIOError: If another process trains in the folder.
            ChildProcessError: If a start fails; it has printed the reason.
            OSError: If the run folder cannot be written to.
        """
        self.folder.path.mkdir(parents=True, exist_ok=True)
        with holding(self.folder.path) as check_folder, note_signals() as noted:
            if not self.resuming:
                self.folder.clear()
            replace_text(self.folder.config, self.run.dump())
            if self.waiting:
                self._train_waiting(command, noted, check_folder)
            if noted:
                return noted[0]
            self._keep_best()
        return None

    def _train_waiting(
        self, command: Command, noted: list[int], check_folder: Callable[[], None]
    ) -> None:
        """Train the starts that wait, as many at a time as chosen, until a signal or a failure."""
        waiting, running = list(self.waiting), dict[SpawnProcess, Start]()
        seeds = ", ".join(str(start.run.seed) for start in waiting)
        abreast = min(self.abreast, len(waiting))
        print(f"training starts of the seeds {seeds}, {abreast} at a time", flush=True)
        lifeline, held = multiprocessing.Pipe(duplex=False)
        try:
            while (waiting or running) and not noted:
                while waiting and len(running) < self.abreast:
                    start = waiting.pop(0)
                    running[self._begin(start, command, lifeline)] = start
                connection.wait([process.sentinel for process in running], PATIENCE)
                check_folder()
                for process in [process for process in running if not process.is_alive()]:
                    _check_end(running.pop(process), process.exitcode)
        finally:
            held.close()
            for process in running:
                process.join()
            lifeline.close()

    def _begin(
        self, start: Start, command: Command, lifeline: connection.Connection
    ) -> SpawnProcess:
        """Begin to train a start, with its progress bar in a row of its own."""
        row = start.number - 1 if self.abreast > 1 else 0
        arguments = [f"--config={self.folder.config}", f"--output={start.run.output}"]
        arguments += [f"--seed={start.run.seed}", "--training.starts=1"]
        arguments.append("--resume" if self.resuming and start.is_begun else "--overwrite")
        variables = {"TQDM_DESC": f"start {start.number}", "TQDM_POSITION": str(row)}
        if self.abreast > 1 and not self.run.training.cpu_threads:
            arguments.append("--training.cpu_threads=1")
            variables["OMP_NUM_THREADS"] = "1"
        process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(command, arguments, lifeline)
        )
        with _without_interrupts(), _environment(variables):
            process.start()
        return process

    def _keep_best(self) -> None:
        """Make the folder of the run that of the best start.

        Until the folder of the starts is renamed, a run that was cut short repeats all of this
        when it is resumed.
        """
        losses = {start.run.seed: start.loss for start in self.starts}
        best = min(self.starts, key=lambda start: losses[start.run.seed])
        for name in CONTENTS:
            if (entry := best.folder.path / name).exists():
                _copy(entry, self.folder.path / name)
        record = {
            "seed": self.run.seed,
            "kept": best.run.seed,
            "losses": {k: x if math.isfinite(x) else None for k, x in losses.items()},
        }
        replace_text(self.folder.choice, json.dumps(record, indent=1))
        removed = temporary_of(self.folder.starts)
        shutil.rmtree(removed, ignore_errors=True)  # of an earlier run that was killed
        self.folder.starts.rename(removed)
        replace_text(self.folder.config, replace(self.run, seed=best.run.seed).dump())
        shutil.rmtree(removed)
        for start in self.starts:
            kept = ", kept" if start is best else ""
            print(f"{start}: final loss {losses[start.run.seed]:.6g}{kept}")


def plan_starts(
    run: RunConfig, *, resume: str | None, overwrite: bool
) -> tuple[RunConfig, Starts | None]:
    """Return the starts of a run that are still to be trained.

    Args:
        run: The run.
        resume: Checkpoint to resume from, `latest` or `step-N`; None starts afresh.
        overwrite: Replace a run that is in the folder.

    Returns:
        The run, and its starts. These are None for a run with one start, and for one that is
        resumed after the best has been chosen: that continues with the seed of the best.

    Raises:
        ValueError: If the starts cannot be trained as asked, or the run as it is described.
        FileNotFoundError: If the data are missing.
    """
    if run.training.starts > 1 and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "training.starts must be 1 under accelerate launch with several processes, got "
            f"{run.training.starts}: each start is trained by one process"
        )
    if resume is None:
        several = run.training.starts > 1
        return run, Starts(run, resuming=False, overwrite=overwrite) if several else None
    folder = RunFolder(run.output)
    saved = folder.check_claim(resume=True, overwrite=overwrite)
    begun = (saved.get("training") or {}).get("starts", 1)
    if begun != run.training.starts:
        raise ValueError(
            f"cannot resume the run in {folder.path} with other starts: training.starts is {begun} "
            f"there and {run.training.starts} here"
        )
    if run.training.starts == 1:
        return run, None
    if folder.choice.exists() and not folder.starts.exists():
        return _with_kept_seed(run, folder.choice), None
    _check_same(saved, run)
    if resume != "latest":
        raise ValueError(
            f"--resume {resume} must wait until the best start is chosen: each start in "
            f"{folder.starts} has checkpoints of its own; use --resume alone"
        )
    return run, Starts(run, resuming=True, overwrite=overwrite)


def _with_kept_seed(run: RunConfig, choice: Path) -> RunConfig:
    """Return the run with the seed of the start that was kept, if it has the seed of all starts."""
    try:
        content = json.loads(choice.read_text(encoding="utf-8"))
        seed, kept = int(content["seed"]), int(content["kept"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{choice} must hold the seed of the start that was kept") from error
    return replace(run, seed=kept) if run.seed == seed else run


def _check_same(saved: Mapping[str, Any], run: RunConfig) -> None:
    """Raise if an option differs from the saved ones: final losses could not be compared."""
    for option, (old, new) in find_changes(saved, run.as_dict(), {"output"}).items():
        raise ValueError(
            f"cannot resume the starts in {run.output} with other options: {option} is "
            f"{old} there and {new} here"
        )


def _run(command: Command, arguments: Sequence[str], lifeline: connection.Connection) -> None:
    """Run a command in this process, until its parent closes the lifeline, or ends."""

    def stop() -> None:
        with suppress(EOFError):
            lifeline.recv_bytes()
        # Ignored before and after the training, and noted once during it.
        while True:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(PATIENCE)

    Thread(target=stop, daemon=True).start()
    sys.exit(command(arguments))


def _check_end(start: Start, status: int | None) -> None:
    """Raise `ChildProcessError` unless a start has ended well."""
    if status is not None and status < 0:
        raise ChildProcessError(f"{start} was killed by signal {-status}")
    if status:
        raise ChildProcessError(f"{start} ended with status {status}")


def _copy(entry: Path, place: Path) -> None:
    """Copy a file or folder to a place, and replace what is there."""
    if place.is_dir():
        shutil.rmtree(place)
    if entry.is_dir():
        shutil.copytree(entry, place)
    else:
        shutil.copyfile(entry, place)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C in the processes that are started in the block, from their first moment."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment of the processes that are started in the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _count_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
