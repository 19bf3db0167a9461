"""Conditioning of the layers of runs over the steps of training.

The figure of Song, Sebe and Wang, TPAMI 2022, https://arxiv.org/abs/2212.05599: condition number
over steps, one line for each choice of techniques.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from disentangle.curves.merging import merge_runs
from disentangle.orthogonality.conditioning import split_measure_name
from disentangle.runs.metrics_log import collect_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from disentangle.output.figures import Curve

MEASURE_LABELS = {
    "condition": r"condition number $\lambda_\max/\lambda_\min$",
    "nonnull_condition": r"$\lambda_\max/\lambda_\min$ without the null space",
    "effective_rank": "effective rank",
    "orthogonality_error": "orthogonality error",
    "norm": r"norm $\sqrt{\sum\lambda}$",
    "normalised_condition": r"$\lambda_\max/\lambda_\min$ at a mean $\lambda$ of 1",
}
QUANTITY_LABELS = {
    "weight": "weight's Gram matrix",
    "gradient": "gradient's Gram matrix",
    "covariance": "covariance",
}
LINEAR = {"effective_rank"}
# There is no smaller ratio.
LEAST = {"condition": 1.0, "nonnull_condition": 1.0, "normalised_condition": 1.0}


Layers = dict[str, dict[int, float]]  # values of a run by layer and step, NaN if not finite


def read_layers(lines: Iterable[Mapping[str, Any]], quantity: str, measure: str) -> Layers:
    """Return the values of one measure of one quantity in the log of a run.

    Examples:
        >>> lines = [{"step": 10, "conditioning/U/weight/condition": 2.0}]
        >>> read_layers(lines, "weight", "condition")
        {'U': {10: 2.0}}
    """

    def name_layer(name: str) -> str | None:
        layer, *kind = split_measure_name(name) or [""]
        return layer if kind == [quantity, measure] else None

    return collect_values(lines, name_layer)


def gather_layers(
    groups: Mapping[str, Sequence[Layers]], layers: Iterable[str], measure: str
) -> dict[str, list["Curve"]]:
    """Return the curves of each layer, one for each experiment that has records of it.

    Args:
        groups: Values of the runs of each experiment, by the label of its curves.
        layers: Layers to draw.
        measure: Measure of these values.
    """
    curves: dict[str, list[Curve]] = {layer: [] for layer in layers}
    for layer in curves:
        for label, group in groups.items():
            values = [found[layer] for found in group if layer in found]
            if values:
                curves[layer].append(merge_runs(label, values, logarithmic=measure not in LINEAR))
    return curves


def draw_conditioning(
    panels: Mapping[str, Sequence["Curve"]], quantity: str, measure: str, **options: Any
) -> "Figure":
    """Draw a panel for each layer.

    Args:
        panels: Curves by layer, see `gather_layers`.
        quantity: Quantity that was measured.
        measure: Measure of the quantity.
        **options: Further options of `disentangle.output.figures.draw_curves`.
    """
    from disentangle.output.figures import draw_curves  # matplotlib takes a moment

    return draw_curves(
        panels,
        x_label="optimizer step",
        y_label=f"{MEASURE_LABELS[measure]}\nof the {QUANTITY_LABELS[quantity]}",
        logarithmic=measure not in LINEAR,
        least=LEAST.get(measure),
        **options,
    )
