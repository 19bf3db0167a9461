"""Checks and figures of a part, and the results that they become."""

import importlib
import os
import statistics
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from unittest import mock

import torch
from torch import Tensor

from disentangle.linalg import polar, square_root
from disentangle.linalg.gram import IteratedRoot

Outcome = Literal["ok", "failed", "skipped", "figure"]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Setting:
    """Device and size of the checks.

    Attributes:
        device: Device to check.
        quick: Use toy sizes, to check the harness itself.
    """

    device: torch.device
    quick: bool = False


@dataclass(frozen=True)
class Figure:
    """Measurements of one quantity.

    Attributes:
        name: Name of the quantity.
        values: Measurements, at least one.
        unit: Their unit.
        at_least: Target: lower bound on the median.
        at_most: Target: upper bound on the median.
    """

    name: str
    values: Sequence[float]
    unit: str
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Result:
    """Outcome of one check, or one figure.

    Attributes:
        part: Part that it belongs to.
        name: Name of the check or figure.
        outcome: Outcome; `failed` includes checks that raised an unexpected exception.
        detail: Measured error, reason, or unit of a figure.
        median: Median of a figure.
        quartiles: First and third quartile of a figure.
        count: Number of measurements of a figure.
        target: Target of a figure, in words.
        met: Whether a figure meets its target; `None` without a target.
    """

    part: str
    name: str
    outcome: Outcome
    detail: str = ""
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    count: int = 0
    target: str = ""
    met: bool | None = None


class SkippedError(Exception):
    """A check cannot be made on this machine; the message is the reason."""


class MismatchError(AssertionError):
    """A check found something else than it expected."""


# A check returns what it found, or yields figures.
Check = Callable[[], str | Iterable[Figure]]
Checks = Iterator[tuple[str, Check]]


def run_part(part: str, setting: Setting) -> Iterator[Result]:
    """Run the checks of a part one after the other."""
    torch.manual_seed(0)
    module = importlib.import_module(f"{__package__}.{part}")
    with ExitStack() as stack:
        if setting.device.type == "cpu":
            stack.enter_context(ways_of_a_gpu())
        for name, check in module.checks(setting):
            yield from run_check(part, name, check, setting)


def run_check(part: str, name: str, check: Check, setting: Setting) -> Iterator[Result]:
    """Run one check; any exception means that it failed or, for `SkippedError`, was skipped."""
    try:
        found = check()
        if isinstance(found, str):
            yield Result(part, name, "ok", found)
        else:
            for figure in found:
                yield summarise(part, figure, judged=not setting.quick)
    except SkippedError as reason:
        yield Result(part, name, "skipped", str(reason))
    except MismatchError as mismatch:
        yield Result(part, name, "failed", str(mismatch))
    except Exception as error:
        traceback.print_exc()
        yield Result(part, name, "failed", f"{one_line(error)} ({place_of(error)})")


def summarise(part: str, figure: Figure, *, judged: bool) -> Result:
    """Compute median and quartiles of a figure, and compare them with its target.

    Args:
        part: Part that it belongs to.
        figure: Measurements.
        judged: Whether the target applies, which it does not at toy size.
    """
    median, low, high = spread(figure.values)
    target, met = "", None
    if judged and figure.at_least is not None:
        target, met = f"at least {figure.at_least:g}", median >= figure.at_least
    if judged and figure.at_most is not None:
        target, met = f"at most {figure.at_most:g}", median <= figure.at_most
    return Result(
        part,
        figure.name,
        "figure",
        figure.unit,
        median=median,
        quartiles=(low, high),
        count=len(figure.values),
        target=target,
        met=met,
    )


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, first and third quartile."""
    if len(values) == 1:
        return (values[0],) * 3
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, low, high


def one_line(error: BaseException) -> str:
    """Type and message of an exception on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:300]}"


def place_of(error: BaseException) -> str:
    """Innermost line of this repository in the traceback of an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f for f in frames if Path(f.filename).is_relative_to(ROOT) and ".venv" not in f.filename
    ]
    frame = (ours or frames)[-1]
    return f"{os.path.relpath(frame.filename, ROOT)}:{frame.lineno}"


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Relative error `‖got − expected‖ / ‖expected‖`; absolute if `expected` is zero.

    Infinite unless both tensors have their infinite and NaN entries in the same places.
    """
    got, expected = got.detach().cpu().double(), expected.detach().cpu().double()
    if got.shape != expected.shape:
        raise MismatchError(f"expected shape {tuple(expected.shape)}, got {tuple(got.shape)}")
    finite = expected.isfinite()
    others = (x.masked_fill(finite, 0.0) for x in (got, expected))
    if not torch.equal(got.isfinite(), finite) or not torch.allclose(*others, equal_nan=True):
        return float("inf")
    difference = (got - expected).masked_fill(~finite, 0.0).norm().item()
    size = expected.masked_fill(~finite, 0.0).norm().item()
    return difference / size if size else difference


def check_error(what: str, got: Tensor, expected: Tensor, tolerance: float) -> str:
    """Format the relative error; raise `MismatchError` if it exceeds the tolerance."""
    error = relative_error(got, expected)
    if not error <= tolerance:
        raise MismatchError(
            f"{what}: expected a relative error of at most {tolerance:.0e}, got {error:.1e}"
        )
    return f"{error:.0e}"


def check_pair(
    where: str,
    got: tuple[Tensor, Tensor],
    expected: tuple[Tensor, Tensor],
    tolerances: tuple[float, float],
) -> str:
    """Apply `check_error` to a value and its gradient."""
    rows = zip(("value", "gradient"), got, expected, tolerances, strict=True)
    errors = [check_error(f"{what}, {where}", *row) for what, *row in rows]
    return f"{where}: {', '.join(errors)}"


def require(condition: bool, expected: str, got: object) -> None:
    """Raise `MismatchError` unless a condition holds."""
    if not condition:
        raise MismatchError(f"expected {expected}, got {got}")


@contextmanager
def ways_of_a_gpu() -> Iterator[None]:
    """Compute matrix roots on a CPU as on a GPU, by matrix products only.

    The tolerances of the checks are then tested on the algorithms that a GPU uses.
    """
    automatic = square_root._resolve

    def resolve(method, A):
        return "newton_schulz" if method == "auto" else automatic(method, A)

    with (
        mock.patch.object(polar, "_root_class", return_value=IteratedRoot),
        mock.patch.object(square_root, "_resolve", resolve),
    ):
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn off TF32, which cuDNN uses for float32 convolutions by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
