"""The section `optimizer` of a run."""

from dataclasses import dataclass
from math import cos, pi
from typing import Literal

from disentangle.config.checks import check_fit, check_not_negative, check_positive

KINDS_OF_OPTION = {"betas": ("adam", "adamw"), "momentum": ("sgd",)}
SCHEDULES_OF_OPTION = {
    "decay_from": ("linear", "cosine"),
    "decay_every": ("step",),
    "decay_at": ("multi_step",),
    "decay_factor": ("step", "multi_step"),
}


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer of every network of a run, and the schedule of its learning rate.

    An option of another kind or schedule than the chosen one must be left at its default.

    Attributes:
        kind: Adam, AdamW (whose weight decay is not part of the gradient) or SGD.
        lr: Learning rate, per step.
        betas: With `adam` and `adamw`, decay of the running averages of the gradient and of its
            square.
        momentum: With `sgd`, decay of the running sum of gradients.
        weight_decay: Weight decay of every parameter, in units of the learning rate.
        warmup: Steps in which the rate grows linearly from 0.
        schedule: `linear` and `cosine` let the rate fall to 0; `step` and `multi_step` multiply it
            by `decay_factor`, again and again or at certain times.
        decay_from: With `linear` and `cosine`, fraction of the steps after which the rate falls.
        decay_every: With `step`, fraction of the steps between two decays.
        decay_at: With `multi_step`, fractions of the steps after which it is decayed.
        decay_factor: With `step` and `multi_step`, what the rate is multiplied by.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: Literal["constant", "linear", "cosine", "step", "multi_step"] = "constant"
    decay_from: float = 0.0
    decay_every: float = 1 / 3
    decay_at: tuple[float, ...] = ()
    decay_factor: float = 0.1

    def __post_init__(self) -> None:
        check_fit(self, "kind", KINDS_OF_OPTION)
        check_fit(self, "schedule", SCHEDULES_OF_OPTION)
        check_positive(self, "lr", "decay_every", "decay_factor")
        check_not_negative(self, "weight_decay", "warmup")
        decays = {"momentum": [self.momentum], "betas": self.betas}
        for name, values in decays.items():
            if not all(0 <= value < 1 for value in values):
                raise ValueError(f"optimizer.{name} must lie in [0, 1), got {getattr(self, name)}")
        for name, values in {"decay_from": [self.decay_from], "decay_at": self.decay_at}.items():
            if not all(0 <= value <= 1 for value in values):
                raise ValueError(f"optimizer.{name} must lie in [0, 1], got {getattr(self, name)}")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, from 1 to `steps`.

        Examples:
            >>> linear = OptimizerConfig(lr=1.0, schedule="linear", decay_from=0.5)
            >>> [linear.rate(step, 8) for step in (1, 4, 5, 8)]
            [1.0, 1.0, 1.0, 0.25]
            >>> decayed = OptimizerConfig(lr=1.0, schedule="multi_step", decay_at=(0.5, 0.75))
            >>> [round(decayed.rate(step, 8), 4) for step in (4, 5, 6, 7)]
            [1.0, 0.1, 0.1, 0.01]
        """
        growth = min(1.0, step / self.warmup) if self.warmup else 1.0
        return self.lr * growth * self._share(step, steps)

    def _share(self, step: int, steps: int) -> float:
        """Return the factor by which the schedule multiplies the learning rate."""
        if self.schedule in ("linear", "cosine"):
            kept = round(self.decay_from * steps)
            fallen = max(0, step - 1 - kept) / max(1, steps - kept)
            return 1 - fallen if self.schedule == "linear" else (1 + cos(pi * fallen)) / 2
        decays = 0
        if self.schedule == "step":
            decays = (step - 1) // max(1, round(self.decay_every * steps))
        elif self.schedule == "multi_step":
            decays = sum(step > round(share * steps) for share in self.decay_at)
        return self.decay_factor**decays
