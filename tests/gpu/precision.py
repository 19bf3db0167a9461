"""Train each task in one process: in float32, bfloat16 and float16, and compiled.

Initial weights and random numbers are drawn on the CPU, so the losses of the first steps agree with
those of a run on the CPU up to rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial, partialmethod
from pathlib import Path
from unittest import mock

import torch
from accelerate import Accelerator
from torch import nn

from disentangle.config.parse import parse_run
from disentangle.training import trainer as trainer_module
from disentangle.training.trainer import Trainer

from .harness import Checks, MismatchError, Setting, require
from .sessions import TASKS, forget_runs, lone_run, options, read_losses

FIRST = 5  # steps whose losses are compared
# Largest relative differences of these losses; in float32, convolutions use TF32.
TOLERANCES = {"no": 1e-2, "bf16": 5e-2, "fp16": 5e-2}
LEAST = 0.5  # adversarial losses cross zero
NAMES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


def checks(setting: Setting) -> Checks:
    """Yield the checks of this part; compiled runs come last, since they take longest."""
    for task in TASKS:
        for precision in ("no", "bf16"):
            name = f"{task} in {NAMES[precision]}"
            yield name, partial(check_run, task, precision, setting)
        yield f"{task} in float16, resumed", partial(check_scaler, task, setting)
    for task in TASKS:
        yield f"{task} in bfloat16, compiled", partial(check_compiled, task, setting)


def steps_of(setting: Setting) -> int:
    """Number of steps of a run."""
    return 2 * FIRST if setting.quick else 50


def check_run(task: str, precision: str, setting: Setting) -> str:
    """Train, and compare the first losses with those of a CPU."""
    with lone_run(setting) as folder:
        train(task, precision, setting, folder, steps=steps_of(setting))
        losses = read_losses(task, folder)
    return compare(task, losses, precision, setting)


def check_compiled(task: str, setting: Setting) -> str:
    """Train with compiled networks, and compare the first losses with those of a CPU."""
    torch.compiler.reset()
    with lone_run(setting) as folder, quick_compiler() if setting.quick else nullcontext():
        compiled = "--training.compile true"
        train(task, "bf16", setting, folder, compiled, steps=steps_of(setting))
        losses = read_losses(task, folder)
    return compare(task, losses, "bf16", setting)


def check_scaler(task: str, setting: Setting) -> str:
    """Train half of the steps, and check that the run resumes with the state of the scaler."""
    steps = steps_of(setting)
    on_cpu = setting.device.type == "cpu"
    with lone_run(setting) as folder, scaler_on_cpu() if on_cpu else nullcontext():
        precision = "bf16" if on_cpu else "fp16"
        half = train(task, precision, setting, folder, steps=steps // 2)
        before = half.accelerator.scaler.state_dict()
        made = before["_growth_tracker"] or before["scale"] < 65536
        require(bool(made), "a scaler that has seen steps", before)
        forget_runs()
        whole = train(task, precision, setting, folder, steps=steps, expected_scaler=before)
        require(whole.step == steps, f"{steps} steps", whole.step)
        losses = read_losses(task, folder)
    found = compare(task, losses, "fp16", setting)
    return f"scale {before['scale']:g} over the resumption; {found}"


def train(
    task: str,
    precision: str,
    setting: Setting,
    folder: Path,
    *more: str,
    steps: int,
    expected_scaler: dict[str, object] | None = None,
) -> Trainer:
    """Train a run or, with `expected_scaler`, resume it.

    Raises:
        MismatchError: If it resumes with another state of the scaler.
    """
    given = [
        f"--training.mixed_precision {precision} --training.steps {steps}",
        f"--training.log_every {FIRST} --training.conditioning_every 0",
        TASKS[task].constant_rate,
        "--orthogonality [nog,olr]",
        *more,
    ]
    run, _ = parse_run(options(task, setting, folder, *given))
    if expected_scaler is None:
        trainer = Trainer(run)
    else:
        trainer = Trainer(run, resume="latest")
        got = trainer.accelerator.scaler.state_dict()
        if got != expected_scaler:
            raise MismatchError(f"expected the scaler {expected_scaler}, got {got}")
    trainer.train()
    return trainer


@cache
def reference_loss(task: str, quick: bool) -> float:
    """Compute the mean loss of the first steps on the CPU in float32."""
    setting = Setting(torch.device("cpu"), quick)
    with lone_run(setting) as folder:
        train(task, "no", setting, folder, steps=FIRST)
        return read_losses(task, folder)[0]


def compare(task: str, losses: list[float], precision: str, setting: Setting) -> str:
    """Compare the mean loss of the first steps with that of the CPU."""
    expected = reference_loss(task, setting.quick)
    error = abs(losses[0] - expected) / max(abs(expected), LEAST)
    require(
        error <= TOLERANCES[precision],
        f"a first loss of {expected:.4g} up to {TOLERANCES[precision]:.0%}",
        f"{losses[0]:.4g}",
    )
    return f"losses {losses[0]:.4g} to {losses[-1]:.4g}, error of the first {error:.0e}"


@contextmanager
def scaler_on_cpu() -> Iterator[None]:
    """Enable float16 and a GradScaler on the CPU, which Accelerate offers on GPUs only."""

    def build(run, folder) -> Accelerator:
        accelerator = build_accelerator(run, folder)
        accelerator.state._mixed_precision = "fp16"
        accelerator.scaler = torch.amp.GradScaler("cpu")
        return accelerator

    build_accelerator = trainer_module.build_accelerator
    with mock.patch.object(trainer_module, "build_accelerator", build):
        yield


@contextmanager
def quick_compiler() -> Iterator[None]:
    """Trace networks as for compilation, but generate no code."""
    compile_network = partialmethod(nn.Module.compile, backend="aot_eager")
    with mock.patch.object(nn.Module, "compile", compile_network):
        yield
