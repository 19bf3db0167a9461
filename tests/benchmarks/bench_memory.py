"""Resident memory of 5,000 steps of each small recipe: level, or there is a leak.

Each run has a process of its own; what its workers hold is counted with it. The batches are small,
since what leaks leaks by the step, and every kind of writing (lines, checkpoints, samples,
activeness) happens many times.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from disentangle.output.figures import Curve, draw_curves, encode_figure

from .timing import print_table

STEPS = 5_000
RECIPES = {
    "quickstart": "--training.workers 2 --training.starts 1",
    "eigengan_sprites": "--model.base_channels 4 --discriminator.base_channels 4"
    " --training.activeness_every 500 --orthogonality [nog,olr]",
    "gan64_sprites": "--model.base_channels 4 --discriminator.base_channels 4",
    "dbn_tiny_digits": "--model.base_channels 4 --orthogonality [nog,olr]",
}
COMMON = "--training.batch_size 8 --training.log_every 20 --training.checkpoint_every 500"
SECONDS = 1.0  # between two looks
FIGURE = Path(__file__).with_name("memory.png")


def soak(recipe: str, options: str, folder: Path) -> Iterator[tuple[int, float]]:
    """Steps made and resident megabytes, again and again until a run ends."""
    command = [sys.executable, "-m", "disentangle", "train", "--config", f"configs/{recipe}.yaml"]
    command += ["--output", str(folder), "--training.steps", str(STEPS), "--training.cpu_threads"]
    command += ["1", *options.split(), *COMMON.split()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as run:
        while run.poll() is None:
            time.sleep(SECONDS)
            if (step := read_step(folder)) and (size := resident(run.pid)):
                yield step, size
    assert run.returncode == 0, f"{recipe} ended with status {run.returncode}"


def read_step(folder: Path) -> int:
    """The last step of which there is a line."""
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return json.loads(lines[-1])["step"] if lines else 0


def resident(pid: int) -> float:
    """Megabytes that a process and those it has started hold; what they share counts once."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_full_info().pss for member in family) / 1e6
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def growth(steps: np.ndarray, sizes: np.ndarray) -> float:
    """Megabytes per 1,000 steps over the second half, the slope of the least squares."""
    late = steps > STEPS / 2
    return float(1000 * np.polyfit(steps[late], sizes[late], 1)[0])


def main() -> None:
    rows, curves = [], []
    for recipe, options in RECIPES.items():
        with tempfile.TemporaryDirectory() as folder:
            looks = np.array(list(soak(recipe, options, Path(folder) / "run")))
        steps, sizes = looks.T
        cells = [sizes[steps >= share * STEPS][0] for share in (0.1, 0.5)]
        numbers = [*cells, sizes[-1], growth(steps, sizes)]
        rows.append([recipe, *(f"{number:.1f}" for number in numbers)])
        curves.append(Curve(recipe, steps, sizes, sizes, sizes))
    print_table(
        f"Resident memory over {STEPS} steps, MB",
        ["recipe", "after 500", "after 2500", "at the end", "MB per 1000 steps, second half"],
        rows,
    )
    figure = draw_curves(
        {"5,000 steps of the small recipes": curves},
        x_label="step",
        y_label="resident memory, MB",
        logarithmic=False,
        least=0,
    )
    FIGURE.write_bytes(encode_figure(figure, "png"))
    print(f"figure: {FIGURE}")
