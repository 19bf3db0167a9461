"""Checks an installation on a GPU, in at most eight minutes.

Each part has a process of its own: an error on the device, after which no call succeeds in its
process, or a part that hangs, costs the others nothing. That takes some seconds per part for
imports, which the checks do not need together.

Exit status: 0 if all checks succeeded, 1 if one failed or was cut off, 2 without a GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import torch

from .harness import ROOT, Result
from .report import Report, line_of

# Seconds of each part, in the order of their worth. What one leaves over the next may use.
LIMITS = {
    "linear_algebra": 35,
    "techniques": 60,
    "commands": 100,
    "speed": 165,
    "precision": 70,
    "layers": 20,
    "metrics": 20,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts; returns the exit status."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "no GPU: PyTorch finds no CUDA device (--device cpu --quick runs the checks on a CPU)"
        )
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    report = Report(options.output, options.device, quick=options.quick)
    try:
        run_parts(options.part or list(LIMITS), report)
    finally:
        report.write()
        print(f"\n{report.summary()}\n{options.output / 'results.md'}", flush=True)
    return int(report.failed)


def run_parts(parts: Sequence[str], report: Report) -> None:
    """Runs parts one after the other; the report is written after each."""
    deadline = time.monotonic()
    for part in parts:
        started = time.monotonic()
        deadline += LIMITS[part]
        print(f"\n{part}, {deadline - started:.0f} s at most", flush=True)
        for result in run_limited(part, deadline - started, report):
            print(line_of(result), flush=True)
            report.results.append(result)
        report.seconds[part] = time.monotonic() - started
        report.write()


def command_of(part: str, report: Report) -> list[str]:
    """What runs a part and prints each result as a line of JSON."""
    command = [sys.executable, "-m", f"{__package__}.worker", part, report.device]
    return [*command, "--quick"] if report.quick else command


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument(
        "--part", action="append", choices=LIMITS, help="only this part; may be given repeatedly"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs") / "gpu",
        metavar="FOLDER",
        help="for results.json, results.md and logs (default: %(default)s)",
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="everything at toy size")
    options = parser.parse_args(arguments)
    if options.device == "cpu" and not options.quick:
        parser.error("--device cpu takes hours at full size: add --quick")
    return options


def run_limited(part: str, seconds: float, report: Report) -> Iterator[Result]:
    """Results of a part as they come, until its process ends or its time is over."""
    log, overran = report.folder / f"{part}.log", threading.Event()
    with ExitStack() as stack:
        # What a process that is killed has left is removed.
        scratch = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        process = stack.enter_context(
            subprocess.Popen(
                command_of(part, report),
                cwd=ROOT,
                env=os.environ | {"TMPDIR": scratch},
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w")),
                text=True,
                start_new_session=True,
            )
        )
        stack.callback(kill_group, process)
        timer = threading.Timer(seconds, cut, [process, overran])
        stack.callback(timer.cancel)
        timer.start()
        for line in process.stdout:
            yield Result(**json.loads(line))
        status = process.wait()
    if overran.is_set():
        yield Result(part, "the whole part", "failed", f"cut off after {seconds:.0f} s")
    elif status:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        yield Result(part, "the whole part", "failed", f"ended with status {status}: {last[:300]}")


def cut(process: subprocess.Popen[str], overran: threading.Event) -> None:
    """Ends a part whose time is over."""
    overran.set()
    kill_group(process)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Ends a process and those it has started, if any are left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
