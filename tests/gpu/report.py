"""Report results on the terminal, in `results.json` and in `results.md`."""

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from disentangle import __version__
from disentangle.runs.atomic import replace_text

from .harness import ROOT, Result

PACKAGES = ("torch", "torchvision", "triton", "accelerate", "diffusers", "numpy", "scipy")


@dataclass
class Report:
    """Results so far, and facts about the machine.

    Attributes:
        folder: Existing folder for the files.
        device: `cuda` or `cpu`.
        quick: Whether the checks use toy sizes.
        results: Results of all parts so far.
        seconds: Wall-clock seconds of each part that has ended.
        facts: Hardware, versions, commit, date and command.
    """

    folder: Path
    device: str
    quick: bool = False
    results: list[Result] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.facts = gather_facts(self.device, quick=self.quick)

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(result.outcome == "failed" for result in self.results)

    def summary(self) -> str:
        """Count the outcomes, and list the time of each part."""
        counts = Counter(result.outcome for result in self.results)
        missed = sum(result.met is False for result in self.results)
        parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in self.seconds.items())
        return (
            f"{counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} skipped, "
            f"{counts['figure']} figures ({missed} miss their target) "
            f"in {sum(self.seconds.values()):.0f} s: {parts}"
        )

    def write(self) -> None:
        """Write both files."""
        content = {
            "facts": self.facts,
            "seconds": self.seconds,
            "results": [asdict(result) for result in self.results],
        }
        replace_text(self.folder / "results.json", json.dumps(content, indent=1) + "\n")
        replace_text(self.folder / "results.md", self.as_markdown())

    def as_markdown(self) -> str:
        """Format the facts, the summary, and tables of figures and checks for each part."""
        lines = ["# GPU checks", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {escape(value)} |" for name, value in self.facts.items()]
        lines += ["", self.summary()]
        for part in dict.fromkeys(result.part for result in self.results):
            own = [result for result in self.results if result.part == part]
            lines += ["", f"## {part}"]
            figures = [result for result in own if result.outcome == "figure"]
            checks = [result for result in own if result.outcome != "figure"]
            if figures:
                lines += ["", "| figure | median | quartiles | target |", "|---|---|---|---|"]
                lines += map(figure_row, figures)
            if checks:
                lines += ["", "| check | outcome | |", "|---|---|---|"]
                lines += [f"| {escape(r.name)} | {label(r)} | {escape(r.detail)} |" for r in checks]
        return "\n".join(lines) + "\n"


def line_of(result: Result) -> str:
    """Format a result as a line of text."""
    begin = f"  {label(result):<8}{result.name}"
    if result.outcome != "figure":
        return f"{begin}: {result.detail}" if result.detail else begin
    line = f"{begin}: {format_number(result.median)} {result.detail}"
    if result.count > 1:
        low, high = map(format_number, result.quartiles)
        line += f" ({low} to {high})"
    return f"{line}, target {result.target}: {verdict(result)}" if result.target else line


def label(result: Result) -> str:
    """Format an outcome, a failure in capitals."""
    return result.outcome.upper() if result.outcome == "failed" else result.outcome


def figure_row(result: Result) -> str:
    """Format a figure as a row of a table."""
    median, *quartiles = map(format_number, (result.median, *result.quartiles))
    spread = " to ".join(quartiles) if result.count > 1 else ""
    target = f"{result.target}: {verdict(result)}" if result.target else ""
    return f"| {escape(result.name)} | {median} {result.detail} | {spread} | {target} |"


def verdict(result: Result) -> str:
    """Format whether a target is met."""
    return "met" if result.met else "missed"


def format_number(value: float) -> str:
    """Format a number with three significant digits, or to a whole number from 1000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def escape(text: str) -> str:
    """Escape text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def gather_facts(device: str, *, quick: bool) -> dict[str, str]:
    """Collect hardware, driver, versions, commit and date."""
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": find_commit()}
    facts["size"] = "toy" if quick else "full"
    facts["device"] = describe_gpu() if device == "cuda" else "CPU"
    facts["driver"] = find_driver() if device == "cuda" else "none"
    facts["processors"] = f"{os.cpu_count()}, {platform.machine()}"
    facts["system"] = platform.platform()
    facts["Python"] = platform.python_version()
    facts["CUDA, cuDNN"] = f"{torch.version.cuda}, {torch.backends.cudnn.version()}"
    facts["TF32 of convolutions"] = str(torch.backends.cudnn.allow_tf32)
    facts["precision of float32 products"] = torch.get_float32_matmul_precision()
    facts["disentangle"] = __version__
    return facts | {name: find_version(name) for name in PACKAGES}


def describe_gpu() -> str:
    """Name, memory and compute capability of the GPU that is used."""
    properties = torch.cuda.get_device_properties(0)
    memory = properties.total_memory / 2**30
    capability = f"{properties.major}.{properties.minor}"
    count = torch.cuda.device_count()
    return f"{properties.name}, {memory:.0f} GiB, capability {capability}, first of {count}"


def find_driver() -> str:
    """Version of the driver, as reported by `nvidia-smi`."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return first_line(query) or "unknown"


def find_commit() -> str:
    """Commit of this repository, marked `dirty` if files differ from it."""
    return first_line(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]) or "unknown"


def first_line(command: Sequence[str]) -> str:
    """First line of the output of a command; empty if the command fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.partition("\n")[0].strip()


def find_version(package: str) -> str:
    """Version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
