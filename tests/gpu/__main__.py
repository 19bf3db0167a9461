"""Check an installation on a GPU, in at most eight minutes.

Each part runs in a process of its own. That costs some seconds of imports per part, but a part that
hangs can be killed, and an error on the device, after which no CUDA call of the process succeeds,
stays within its part.

Exit status: 0 if all checks succeeded, 1 if one failed or was cut off, 2 without a GPU. A figure
that misses its target is marked in the report, and fails nothing.
"""

import argparse
import json
import os
import shlex
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

# Time limit of each part in seconds, most important first. Unused time goes to the next part.
LIMITS = {
    "linear_algebra": 35,
    "techniques": 60,
    "commands": 100,
    "speed": 165,
    "precision": 70,
    "layers": 20,
    "metrics": 20,
}
CPU_FACTOR = 4  # multiplies the limits on a CPU, which may be shared


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; return the exit status."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "no GPU: PyTorch finds no CUDA device (--device cpu --quick tests the checks on a CPU)"
        )
        return 2
    given = sys.argv[1:] if arguments is None else arguments
    report = Report(options.output, options.device, quick=options.quick)
    report.facts["command"] = shlex.join(["python", "-m", "tests.gpu", *given])
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
            # What one part has compiled, the next need not compile again.
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            run_parts(list(dict.fromkeys(options.part or LIMITS)), report)
    finally:
        print(f"\n{report.summary()}\n{options.output / 'results.md'}", flush=True)
    return int(report.failed)


def run_parts(parts: Sequence[str], report: Report) -> None:
    """Run parts one after the other, and write the report after each."""
    deadline = time.monotonic()
    factor = CPU_FACTOR if report.device == "cpu" else 1
    for part in parts:
        started = time.monotonic()
        deadline += factor * LIMITS[part]
        print(f"\n{part}, {deadline - started:.0f} s at most", flush=True)
        try:
            for result in run_limited(part, deadline - started, report):
                print(line_of(result), flush=True)
                report.results.append(result)
        finally:
            report.seconds[part] = time.monotonic() - started
            report.write()


def command_of(part: str, report: Report) -> list[str]:
    """Command that runs a part and prints each result as a line of JSON."""
    command = [sys.executable, "-m", f"{__package__}.worker", part, report.device]
    return [*command, "--quick"] if report.quick else command


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check the options."""
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
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {options.output}: {error.strerror}")
    return options


def run_limited(part: str, seconds: float, report: Report) -> Iterator[Result]:
    """Yield the results of a part until its process ends or exceeds its time limit."""
    log, overran = report.folder / f"{part}.log", threading.Event()
    with ExitStack() as stack:
        # Temporary files of a process that is killed are removed.
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
            if line.endswith("\n"):  # a process that is killed may leave half a line
                yield Result(**json.loads(line))
        status = process.wait()
    if overran.is_set():
        yield Result(part, "the whole part", "failed", f"cut off after {seconds:.0f} s")
    elif status:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        yield Result(part, "the whole part", "failed", f"ended with status {status}: {last[:300]}")


def cut(process: subprocess.Popen[str], overran: threading.Event) -> None:
    """Kill a part that has exceeded its time limit."""
    overran.set()
    kill_group(process)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and the processes that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    for interruption in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interruption, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
