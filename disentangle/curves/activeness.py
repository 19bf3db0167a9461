"""Activeness of the subspaces of runs over the steps of training."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from disentangle.curves.merging import merge_runs
from disentangle.runs.metrics_log import collect_values, split_activeness_name
from disentangle.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from disentangle.output.figures import Curve


def read_subspaces(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """Return the activeness in the log of a run, for each subspace by step.

    Examples:
        >>> read_subspaces([{"step": 10, "activeness/block 1": 0.25, "loss": 1.0}])
        {'block 1': {10: 0.25}}
    """
    return collect_values(lines, split_activeness_name)


def gather_subspaces(groups: Mapping[str, Sequence[Run]]) -> dict[str, list["Curve"]]:
    """Return the curves of each experiment, one for each subspace that it has records of.

    Args:
        groups: The runs of each experiment, by the title of its panel.
    """
    curves = {}
    for label, group in groups.items():
        found = [read_subspaces(run.metrics) for run in group]
        curves[label] = [
            merge_runs(name, [values[name] for values in found if name in values], logarithmic=True)
            for name in dict.fromkeys(chain.from_iterable(found))
        ]
    return curves


def draw_activeness(panels: Mapping[str, Sequence["Curve"]], **options: Any) -> "Figure":
    """Draw a panel for each experiment.

    Args:
        panels: Curves by the title of the panel, see `gather_subspaces`.
        **options: Further options of `disentangle.output.figures.draw_curves`.
    """
    from disentangle.output.figures import draw_curves  # matplotlib takes a moment

    return draw_curves(
        panels,
        x_label="optimizer step",
        y_label="activeness: variance\nof pixels in [−1, 1]",
        logarithmic=True,
        **options,
    )
