"""Curves of runs over steps: what the commands that plot share."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonargparse import ArgumentParser

from disentangle.experiments import Run, group_by_experiment
from disentangle.training.logs import read_lines
from disentangle.training.run_folder import RunFolder

if TYPE_CHECKING:
    from disentangle.figures import Curve

FORMATS = ("png", "pdf", "svg")


def add_output_arguments(parser: ArgumentParser) -> None:
    """The options that say where a figure goes."""
    parser.add_argument(
        "--output",
        type=str,
        help=f"Of kind {', '.join(FORMATS)}; default for one run: in its folder `plots`.",
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace the file.")


def choose_file(
    folders: Sequence[RunFolder], output: str | None, name: str, *, overwrite: bool
) -> Path:
    """Where to write.

    Args:
        folders: The runs that are drawn.
        output: What was asked for.
        name: Of the file in the folder of a single run.
        overwrite: Whether a file may be replaced.

    Raises:
        ValueError: If it was not said, or nothing can or may be written there.
    """
    if output is not None:
        file = Path(output)
        folder = file.parent
    elif len(folders) == 1:
        folder = folders[0].path
        file = folders[0].plots / f"{name}.png"
    else:
        raise ValueError(f"--output FILE is needed to draw {len(folders)} runs together")
    if file.suffix[1:] not in FORMATS:
        endings = ", ".join(f".{kind}" for kind in FORMATS)
        raise ValueError(f"--output must end in one of {endings}, got {file}")
    if not folder.is_dir():
        raise ValueError(f"{file} cannot be written: there is no folder {folder}")
    if file.exists() and not overwrite:
        raise ValueError(f"{file} exists: add --overwrite to replace it, or choose --output")
    return file


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` of a run.

    Raises:
        ValueError: If it has none.
    """
    if not folder.metrics.is_file():
        raise ValueError(f"{folder.path} has no {folder.metrics.name}: it has not been trained")
    return read_lines(folder.metrics)


def write_picture(file: Path, picture: bytes, *, overwrite: bool) -> None:
    """Writes a figure and says where.

    Raises:
        OSError: If the file cannot be written, or is there and was not to be replaced.
    """
    file.parent.mkdir(exist_ok=True)
    with file.open("wb" if overwrite else "xb") as stream:
        stream.write(picture)
    print(f"figure: {file}")


def group_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs of the same experiment, which differ by chance only, by a label of their own."""
    return {
        f"{label} (mean, range of {len(group)})" if len(group) > 1 else label: group
        for label, group in group_by_experiment(runs).items()
    }


def merge_runs(label: str, runs: Sequence[dict[int, float]], *, logarithmic: bool) -> "Curve":
    """One curve for the values by step of several runs: their mean and their range.

    Args:
        label: The curve's.
        runs: At least one.
        logarithmic: Whether the mean is the geometric one; zero, which a logarithmic axis cannot
            show, is then left out.

    Examples:
        >>> curve = merge_runs("NOG", [{1: 1.0, 2: 5.0}, {1: 100.0}], logarithmic=True)
        >>> curve.steps.tolist(), curve.middle.round(6).tolist(), curve.highest.tolist()
        ([1, 2], [10.0, 5.0], [100.0, 5.0])
    """
    from disentangle.figures import Curve

    steps = sorted(set().union(*runs))
    values = np.array([[run.get(step, np.nan) for step in steps] for run in runs])
    shown = np.isfinite(values) & ((values > 0) | (not logarithmic))
    X = np.ma.masked_array(values, ~shown)
    middle = np.ma.exp(np.ma.log(X).mean(axis=0)) if logarithmic else X.mean(axis=0)
    edges = (np.ma.filled(edge, np.nan) for edge in (middle, X.min(axis=0), X.max(axis=0)))
    return Curve(label, np.array(steps), *edges)
