"""The section `training` of a run."""

from dataclasses import dataclass
from typing import Literal

from disentangle.config.checks import check_fit, check_not_negative, check_positive

MOST_WORKERS = 1024
MOST_STARTS = 1000


@dataclass(frozen=True)
class TrainingConfig:
    """Length, batches, precision and logging of the training.

    Attributes:
        steps: Number of optimizer steps.
        starts: Number of seeds that a VAE is trained from, the first the run's own; the start with
            the lowest loss over the last eighth of the steps is kept. On a CPU with two cores two
            are trained at a time, each on one thread.
        batch_size: Images per step, over all processes and accumulation steps together.
        accumulation: Gradient accumulation steps: parts into which the batch of a process is
            divided to save memory.
        mixed_precision: Precision of autocast; overrides the option of `accelerate launch`.
        join_norms: Compute the statistics of batch normalisation over all processes, as
            decorrelated batch normalisation and whitening always do. Otherwise each process uses
            its own, which is faster, and those of the first process are kept.
        channels_last: Use the channels-last memory format, in which convolutions are fast.
        compile: Compile the networks with `torch.compile`; penalties, which differentiate twice,
            and decorrelated batch normalisation are not compiled.
        flip: Mirror each image horizontally with probability ½.
        crop_padding: Largest random shift of each image along either axis, in pixels, with black
            padding. 4 is usual for 32 px.
        crop_area: Smallest share of the area of a random crop of each image, which is resized to
            the whole; 1 crops nothing. 0.08 is usual for ImageNet.
        cpu_threads: Number of threads of each process for arithmetic on a CPU; 0 keeps the
            default, which can be one under `accelerate launch`.
        workers: Number of processes that decode images for each training process, at most 1024;
            0 decodes in the training process.
        on_nonfinite: Action when a loss or a gradient is NaN or infinite. That optimizer step is
            always skipped; `stop` ends the run when the next line of the log is due, `skip`
            continues.
        max_skipped: With `skip`, largest number of steps in a row that may be skipped before the
            run ends.
        ema_half_life: Half-life of the exponential moving average of the weights, in images; 0
            keeps no average.
        log_every: Steps between two lines of `metrics.jsonl`.
        conditioning_every: Steps between two measurements of the conditioning of the Pre-SVD
            parameters and their gradients; by default as `log_every`, 0 makes none.
        activeness_every: Steps between two measurements of the activeness of each subspace of the
            latents, with a warning when one stops changing the image; by default as
            `sample_every`, 0 makes none.
        sample_every: Steps between two grids of samples.
        checkpoint_every: Steps between two checkpoints; the last step always has one.
        keep_checkpoints: Number of the newest checkpoints to keep.
    """

    steps: int = 100_000
    starts: int = 1
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
        check_positive(self, "steps", "starts", "batch_size", "accumulation", "log_every")
        check_positive(self, "sample_every", "checkpoint_every", "keep_checkpoints")
        check_not_negative(self, "cpu_threads", "workers", "ema_half_life", "crop_padding")
        check_not_negative(self, "conditioning_every", "activeness_every")
        check_positive(self, "max_skipped")
        check_fit(self, "on_nonfinite", {"max_skipped": ("skip",)})
        if self.workers > MOST_WORKERS:
            raise ValueError(f"training.workers must be at most {MOST_WORKERS}, got {self.workers}")
        if self.starts > MOST_STARTS:
            raise ValueError(f"training.starts must be at most {MOST_STARTS}, got {self.starts}")
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
