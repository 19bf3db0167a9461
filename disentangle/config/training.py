"""The section `training` of a run."""

from dataclasses import dataclass
from typing import Literal

from disentangle.config.checks import check_fit, check_not_negative, check_positive

MOST_WORKERS = 1024


@dataclass(frozen=True)
class TrainingConfig:
    """Length, batches, precision and what is written when.

    Attributes:
        steps: Optimizer steps.
        batch_size: Images per step, over all processes and accumulation steps together.
        accumulation: Parts into which the batch of a process is divided to save memory.
        mixed_precision: Overrides what `accelerate launch` was told.
        join_norms: Whether batch normalisation takes the images of all processes together, as
            decorrelated batch normalisation and whitening always do. Without, each process has
            statistics of its own, of which those of the first are kept, and is faster.
        channels_last: Keep images and convolutions in the memory order that they are fast in.
        compile: Compile the networks with `torch.compile`; penalties, which differentiate twice,
            and decorrelated batch normalisation run without.
        flip: Mirror each image horizontally with probability ½.
        crop_padding: Move each image by up to so many pixels along either side; what comes in is
            black. 4 is usual for 32 px.
        crop_area: Cut a random part of at least this share of its area out of each image and
            resize it; 1 cuts nothing. 0.08 is usual for ImageNet.
        cpu_threads: Threads of each process for arithmetic on a CPU; 0 leaves them as they are,
            which after `accelerate launch` can mean one.
        workers: Processes that decode images, for each training process, at most 1024; 0 decodes in
            it.
        on_nonfinite: What is done when a loss or a gradient is NaN or infinite. That step is not
            made in any case; `stop` ends the run when the next line of the log is due, `skip` goes
            on.
        max_skipped: With `skip`, how many steps in a row may be skipped; with more the run ends.
        ema_half_life: Images after which the weights of a step count half in their running
            average; 0 keeps none.
        log_every: Steps between two lines of `metrics.jsonl`.
        conditioning_every: Steps between two measurements of how well the Pre-SVD parameters and
            their gradients are conditioned; by default as `log_every`, 0 makes none.
        activeness_every: Steps between two measurements of how much each subspace of the latents
            changes the image, with a warning when one has stopped; by default as `sample_every`, 0
            makes none.
        sample_every: Steps between two sheets of samples.
        checkpoint_every: Steps between two checkpoints; the last step always has one.
        keep_checkpoints: How many of the newest checkpoints are kept.
    """

    steps: int = 100_000
    batch_size: int = 64
    accumulation: int = 1
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    join_norms: bool = True
    channels_last: bool = True
    compile: bool = False
    flip: bool = False
    crop_padding: int = 0
    crop_area: float = 1.0
    cpu_threads: int = 0
    workers: int = 0
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: int = 10
    ema_half_life: int = 0
    log_every: int = 100
    conditioning_every: int | None = None
    activeness_every: int | None = None
    sample_every: int = 1000
    checkpoint_every: int = 5000
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size", "accumulation", "log_every")
        check_positive(self, "sample_every", "checkpoint_every", "keep_checkpoints")
        check_not_negative(self, "cpu_threads", "workers", "ema_half_life", "crop_padding")
        check_not_negative(self, "conditioning_every", "activeness_every")
        check_positive(self, "max_skipped")
        check_fit(self, "on_nonfinite", {"max_skipped": ("skip",)})
        if self.workers > MOST_WORKERS:
            raise ValueError(f"training.workers must be at most {MOST_WORKERS}, got {self.workers}")
        if not 0 < self.crop_area <= 1:
            raise ValueError(f"training.crop_area must lie in (0, 1], got {self.crop_area}")

    @property
    def conditioning_steps(self) -> int:
        """Steps between two measurements of conditioning; 0 makes none."""
        return self.log_every if self.conditioning_every is None else self.conditioning_every

    @property
    def activeness_steps(self) -> int:
        """Steps between two measurements of activeness; 0 makes none."""
        return self.sample_every if self.activeness_every is None else self.activeness_every
