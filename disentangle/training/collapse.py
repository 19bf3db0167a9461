"""A watch on subspaces that collapse: that stop changing the image while the rest trains on.

He, Kan and Shan, EigenGAN, ICCV 2021, https://arxiv.org/abs/2104.12476, see some layers do so. No
loss shows it; the activeness of every subspace, step by step, does.
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

# Activeness is a variance: at a hundredth of it the image moves a tenth as far. Blocks of an
# EigenGAN that trains well (sprites, 32 px, 8 samples) differ by up to 10, and the standard error
# of a block is 5 to 17 %.
SHARE = 0.01
# There a block falls to a ninetieth in the first 20 steps and is back at 50: one low value is no
# news.
PATIENCE = 3
# There the blocks differ by 1000 at the start; in the running average the weakest needs 200 steps
# to catch up. Whatever grows so, over its largest so far, is about to wake up.
WAKING = 1.1
SAMPLES = 8
OWN, OTHERS = "its largest", "the mean of the others"
VERDICTS = {
    OWN: "has all but stopped changing the image",
    OTHERS: "hardly changes the image",  # and perhaps never did
}

Activity = Mapping[str, float]
History = Sequence[tuple[int, Activity]]


class Collapse(NamedTuple):
    """When a subspace was found to have stopped changing the image.

    Attributes:
        group: The subspace, as its axes name it.
        step: Of the measurement that settled it.
        activeness: At that step.
        reference: What it was a small share of.
        compared_with: What the reference is, `OWN` or `OTHERS`.
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
    """The subspaces that have collapsed, each at the first time that it did.

    A subspace has collapsed when its activeness is at most `share` of a reference, in `patience`
    measurements in a row. The reference is the larger one of its own largest value so far and the
    mean of the other subspaces now: one that never woke up is found as well as one that fell
    asleep. A measurement that exceeds all before it by a tenth, as the first does, does not count.

    Args:
        history: Steps, ascending, with the activeness of each subspace.
        share: Between 0 and 1.
        patience: At least 1.

    Raises:
        ValueError: If `share` or `patience` is out of its range.

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
            waking = value > WAKING * largest.get(group, 0.0)
            largest[group] = max(largest.get(group, 0.0), value)
            others = _average_others(values, group), OTHERS
            reference = max((largest[group], OWN), others, key=itemgetter(0))
            asleep = not waking and value <= share * reference[0]
            low[group] = low[group] + 1 if asleep else 0
            if low[group] == patience:
                found.setdefault(group, Collapse(group, step, value, *reference))
    return list(found.values())


def measure_subspaces(
    generator: ModelMixin, *, samples: int = SAMPLES, seed: int = 0, batch_size: int = 64
) -> dict[str, float]:
    """The mean activeness of the axes of each group of a generator, as it is in evaluation mode.

    Of a generator with one group, the activeness of each axis.

    It decodes `3 · samples` images for each axis. The latents are the same in every call, so that
    what changes between calls is the generator; no other random stream is touched.

    Args:
        generator: A `Generator` that is a network.
        samples: Latents around which each axis is moved.
        seed: Of these latents.
        batch_size: Images decoded at once.

    Raises:
        FloatingPointError: If an image is not finite.

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
    # Of a single subspace, each axis by itself: the mean of all would hide one that is dead.
    single = len({axis.group for axis in axes}) == 1
    members: dict[str, list[float]] = {}
    for axis, value in zip(axes, per_axis.tolist(), strict=True):
        members.setdefault(axis.name if single else axis.group, []).append(value)
    return {group: sum(values) / len(values) for group, values in members.items()}


class CollapseWatch:
    """Measures the activeness of every subspace while a generator trains, and says what collapses.

    Measuring changes nothing: evaluation mode and back, no gradient, latents of its own. It waits
    for the device, but only at the steps `every`, `2 every`, ….

    Several processes with equal weights each measure, and find the same: the first would only keep
    the others waiting. Only one of them should have a voice in `say`.

    Args:
        every: Steps between two measurements.
        say: Called with a line once for each subspace that collapses.
        samples: Latents around which each axis is moved.
        seed: Of these latents.
        share: As in `find_collapses`.
        patience: As in `find_collapses`.

    Attributes:
        history: What was measured so far.

    Raises:
        ValueError: If a number is out of its range.

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
        find_collapses(self.history, share=share, patience=patience)  # checks them

    def restore(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Takes up the history in the lines of `metrics.jsonl` of the run that is resumed."""
        for line in lines:
            values = {
                group: value
                for name, value in line.items()
                if (group := split_activeness_name(name)) is not None and value is not None
            }
            if values:
                self.history.append((line["step"], values))

    def measure(self, step: int, generator: ModelMixin) -> Terms:
        """Measures a generator if the step is due, and says which subspaces have collapsed by it.

        Args:
            step: The optimizer step that was made.
            generator: The trained one or its running average, always the same of the two.

        Returns:
            0-d tensors by `activeness_name`, on the generator's device; none if it was not due.

        Raises:
            FloatingPointError: If an image is not finite.
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
    """The mean of the other subspaces, zero if there are none."""
    others = [value for name, value in values.items() if name != group]
    return sum(others) / max(1, len(others))
