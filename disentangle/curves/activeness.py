"""How much each subspace of runs changed the image, step by step."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from disentangle.curves.merging import merge_runs
from disentangle.runs.metrics_log import collect_values, split_activeness_name
from disentangle.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from disentangle.output.figures import Curve


class WatchedRun(NamedTuple):
    """What one run has of the activeness of its subspaces.

    Attributes:
        folder: The run's.
        config: The run's configuration, as it stands in the file.
        subspaces: For each subspace its activeness by step.
    """

    folder: RunFolder
    config: dict[str, Any]
    subspaces: dict[str, dict[int, float]]


def read_subspaces(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, float]]:
    """The activeness in the log of a run, for each subspace by step.

    Examples:
        >>> read_subspaces([{"step": 10, "activeness/block 1": 0.25, "loss": 1.0}])
        {'block 1': {10: 0.25}}
    """
    return collect_values(lines, split_activeness_name)


def gather_subspaces(groups: Mapping[str, Sequence[WatchedRun]]) -> dict[str, list["Curve"]]:
    """The curves of each experiment, one for each subspace that it has records of.

    Args:
        groups: The runs of each experiment, by the title of its panel.
    """
    return {
        label: [
            merge_runs(
                name,
                [run.subspaces[name] for run in group if name in run.subspaces],
                logarithmic=True,
            )
            for name in dict.fromkeys(chain.from_iterable(run.subspaces for run in group))
        ]
        for label, group in groups.items()
    }


def draw_activeness(panels: Mapping[str, Sequence["Curve"]], **options: Any) -> "Figure":
    """A panel for each experiment.

    Args:
        panels: As from `gather_subspaces`.
        **options: Further ones of `disentangle.output.figures.draw_curves`.
    """
    from disentangle.output.figures import draw_curves  # matplotlib takes a moment

    return draw_curves(
        panels,
        x_label="optimizer step",
        y_label="activeness: variance\nof pixels in [−1, 1]",
        logarithmic=True,
        **options,
    )
