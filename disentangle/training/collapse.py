"""Detection of subspaces that collapse: that stop changing the image while the rest trains on.

He, Kan and Shan, EigenGAN, ICCV 2021, https://arxiv.org/abs/2104.12476, observe this in some
layers. No loss shows it, but the activeness of the subspaces over the steps does.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from diffusers import ModelMixin
from torch import Tensor

from disentangle.metrics import activeness
from disentangle.models.evaluation_mode import evaluation_mode
from disentangle.runs.metrics_log import activeness_name, split_activeness_name
from disentangle.training.learner import Terms

# Activeness is a variance: at a hundredth of it, the image changes a tenth as much. Between the
# blocks of an EigenGAN that trains well (sprites, 32 px, 8 samples), it differs by a factor of up
# to 10, and the standard error of a block is 5 to 17 %.
SHARE = 0.01
# In that run, a block falls to a ninetieth in the first 20 steps and recovers by step 50: one low
# value is not enough.
PATIENCE = 3
# In that run, the blocks differ by a factor of 1000 at the start, and the weakest one needs 200
# steps to catch up in the moving average. A subspace whose activeness exceeds its largest one so
# far by this factor is still growing.
GROWTH = 1.1
SAMPLES = 8
OWN, OTHERS = "its largest", "the mean of the others"
VERDICTS = {
    OWN: "has all but stopped changing the image",
    OTHERS: "hardly changes the image",  # it may never have done so
}

Activity = Mapping[str, float]
History = Sequence[tuple[int, Activity]]


class Collapse(NamedTuple):
    """Collapse of a subspace.

    Attributes:
        group: Name of the subspace, the group of its axes.
        step: Step of the measurement that detected it.
        activeness: Activeness at that step.
        reference: Activeness that it was compared with.
        compared_with: Kind of the reference, `OWN` or `OTHERS`.
    """

    group: str
    step: int
    activeness: float
    reference: float
    compared_with: str

    def __str__(self) -> str:
        return (
            f"{self.group} {VERDICTS[self.compared_with]}: activeness {self.activeness:.2g} of "
            f"{self.reference:.2g} ({self.compared_with}) at step {self.step}"
        )


def find_collapses(
    history: History, *, share: float = SHARE, patience: int = PATIENCE
) -> list[Collapse]:
    """Return the subspaces that have collapsed, each with its first collapse.

    A subspace has collapsed when its activeness is at most `share` times a reference, in `patience`
    measurements in a row. The reference is the larger of its own maximum so far and the current
    mean of the other subspaces, so that a subspace that was never active is found as well.
    A measurement that exceeds all earlier ones by a tenth, as the first does, does not count.

    Args:
        history: Steps, ascending, with the activeness of each subspace.
        share: Threshold relative to the reference, between 0 and 1.
        patience: Number of measurements in a row, at least 1.

    Raises:
        ValueError: If `share` or `patience` is out of range.

    Examples:
        >>> history = [(1, {"a": 0.1, "b": 0.1}), (2, {"a": 0.05, "b": 4e-4})]
        >>> print(find_collapses(history, patience=1)[0])
        b has all but stopped changing the image: activeness 0.0004 of 0.1 (its largest) at step 2
    """
    if not 0 < share < 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    if patience < 1:
        raise ValueError(f"patience must be at least 1, got {patience}")
    found: dict[str, Collapse] = {}
    largest: dict[str, float] = {}
    low: Counter[str] = Counter()
    for step, values in history:
        for group, value in values.items():
            growing = value > GROWTH * largest.get(group, 0.0)
            largest[group] = max(largest.get(group, 0.0), value)
            others = _average_others(values, group), OTHERS
            reference = max((largest[group], OWN), others, key=itemgetter(0))
            inactive = not growing and value <= share * reference[0]
            low[group] = low[group] + 1 if inactive else 0
            if low[group] == patience:
                found.setdefault(group, Collapse(group, step, value, *reference))
    return list(found.values())


def measure_subspaces(
    generator: ModelMixin, *, samples: int = SAMPLES, seed: int = 0, batch_size: int = 64
) -> dict[str, float]:
    """Measure the mean activeness of the axes of each group of a generator, in evaluation mode.

    For a generator with a single group, return the activeness of each axis.

    This decodes `3 · samples` images for each axis. The latents are the same in every call, so that
    only the generator changes between calls; no other random stream is used.

    Args:
        generator: `Generator` that is a network.
        samples: Number of latents around which each axis is moved.
        seed: Seed for these latents.
        batch_size: Images decoded at once.

    Raises:
        FloatingPointError: If an image is non-finite.

    Examples:
        >>> from disentangle.models import EigenGAN
        >>> list(measure_subspaces(EigenGAN(image_size=32, base_channels=4, noise_dim=8)))
        ['block 0', 'block 1', 'block 2']
    """

    def decode(z: Tensor) -> Tensor:
        images = generator.decode(z)
        if not images.isfinite().all():
            raise FloatingPointError("an image of the generator is not finite")
        return images

    axes = generator.axes
    latents = generator.sample_latents(samples, torch.Generator().manual_seed(seed))
    with evaluation_mode(generator):
        per_axis = activeness(
            decode,
            latents.to(next(generator.parameters()).device),
            torch.stack([axis.direction for axis in axes]),
            std=[axis.std for axis in axes],
            batch_size=batch_size,
        ).per_axis
    # The mean over the axes of a single subspace would hide an inactive axis.
    single = len({axis.group for axis in axes}) == 1
    members: dict[str, list[float]] = {}
    for axis, value in zip(axes, per_axis.tolist(), strict=True):
        members.setdefault(axis.name if single else axis.group, []).append(value)
    return {group: sum(values) / len(values) for group, values in members.items()}


class CollapseWatch:
    """Watch that measures every subspace of a generator in training, and reports collapses.

    A measurement has no side effects: it runs in evaluation mode, without gradients, on latents of
    its own. It synchronises with the device, but only at the steps `every`, `2 every`, ….

    All processes measure, with equal weights and equal results: waiting for one of them would take
    as long. `say` should print in one process only.

    Args:
        every: Steps between two measurements.
        say: Function that is called with one line for each subspace that collapses.
        samples: Number of latents around which each axis is moved.
        seed: Seed for these latents.
        share: Threshold of `find_collapses`.
        patience: Number of low measurements in a row, see `find_collapses`.

    Attributes:
        history: Steps and measurements so far.

    Raises:
        ValueError: If a number is out of range.

    Examples:
        >>> from disentangle.models import EigenGAN
        >>> generator = EigenGAN(image_size=32, base_channels=4, noise_dim=8)
        >>> watch = CollapseWatch(every=100, say=print)
        >>> list(watch.measure(100, generator)), watch.measure(101, generator)
        (['activeness/block 0', 'activeness/block 1', 'activeness/block 2'], {})
    """

    def __init__(
        self,
        *,
        every: int,
        say: Callable[[str], None],
        samples: int = SAMPLES,
        seed: int = 0,
        share: float = SHARE,
        patience: int = PATIENCE,
    ) -> None:
        for name, number in (("every", every), ("samples", samples)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        self.every, self.say, self.samples, self.seed = every, say, samples, seed
        self.thresholds: dict[str, Any] = {"share": share, "patience": patience}
        self.history: list[tuple[int, Activity]] = []
        find_collapses(self.history, share=share, patience=patience)  # raises

    def restore(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Restore the history from the lines of `metrics.jsonl` of the run that is resumed."""
        for line in lines:
            values = {
                group: value
                for name, value in line.items()
                if (group := split_activeness_name(name)) is not None and value is not None
            }
            if values:
                self.history.append((line["step"], values))

    def measure(self, step: int, generator: ModelMixin) -> Terms:
        """Measure a generator if a measurement is due, and report the subspaces that collapse.

        Args:
            step: Number of optimizer steps made.
            generator: Trained generator or its moving average; the same one in every call.

        Returns:
            0-d tensors by `activeness_name`, on the generator's device; empty if none was due.

        Raises:
            FloatingPointError: If an image is non-finite.
        """
        if step % self.every:
            return {}
        values = measure_subspaces(generator, samples=self.samples, seed=self.seed)
        self.history.append((step, values))
        for collapse in find_collapses(self.history, **self.thresholds):
            if collapse.step == step:
                self.say(str(collapse))
        device = next(generator.parameters()).device
        return {
            activeness_name(group): torch.tensor(value, dtype=torch.float64, device=device)
            for group, value in values.items()
        }


def _average_others(values: Activity, group: str) -> float:
    """Return the mean of the other subspaces, zero if there are none."""
    others = [value for name, value in values.items() if name != group]
    return sum(others) / max(1, len(others))
