"""The training loop that every task shares: averages, logs, samples, checkpoints, signals."""

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from accelerate.utils import set_seed
from diffusers import ModelMixin
from tqdm import tqdm

from disentangle.config import RunConfig
from disentangle.data import describe_left_out
from disentangle.distributed.fsdp import whole_model
from disentangle.runs.checkpoints import save_checkpoint
from disentangle.runs.fingerprint import Fingerprint
from disentangle.runs.lock import holding
from disentangle.training.accelerator import build_accelerator
from disentangle.training.augmentation import augment
from disentangle.training.batches import Batch, StepSampler, load_batches, share_batch
from disentangle.training.classification.task import ClassificationTask
from disentangle.training.collapse import CollapseWatch
from disentangle.training.ema import build_average
from disentangle.training.gan.task import GANTask
from disentangle.training.learner import Terms
from disentangle.training.logs import MetricsLog
from disentangle.training.nonfinite import check_weights
from disentangle.training.resume import Resumption
from disentangle.training.signals import note_signals
from disentangle.training.task import VALIDATION_SCORE, Task
from disentangle.training.terminal import leave_io_errors_to_main_thread
from disentangle.training.vae.code_watch import CodeWatch
from disentangle.training.vae.task import VAETask
from disentangle.traversal import image_grid

TASK_CLASSES: dict[str, type[Task]] = {
    "gan": GANTask,
    "vae": VAETask,
    "classification": ClassificationTask,
}
SHEET = 64  # images in a grid of samples


class Trainer:
    """One run in one process, ready to train.

    The constructor makes all checks and writes nothing; `train` writes.

    Args:
        run: The run.
        resume: Checkpoint to resume from, `latest` or `step-N`; None starts afresh.
        overwrite: Replace a run that is in the folder.

    Attributes:
        step: Number of optimizer steps made.
        saved: Step of the newest checkpoint, 0 if there is none.

    Raises:
        ValueError: If the run cannot be trained as it is described.
        FileNotFoundError: If the data are missing.
    """

    def __init__(
        self, run: RunConfig, *, resume: str | None = None, overwrite: bool = False
    ) -> None:
        self.run = run
        self.start = Resumption.open(run, resume, overwrite=overwrite)
        self.folder, self.step = self.start.folder, self.start.step
        self.data = run.build_data()
        self.fingerprint = Fingerprint.of(self.data)
        self.accelerator = build_accelerator(run, self.folder.path)
        lines = [*self.start.describe(self.fingerprint), describe_left_out(self.data)]
        for line in filter(None, lines):
            self.accelerator.print(line)
        set_seed(run.seed)  # for the initial weights; every later draw has a stream of its own
        self.task = TASK_CLASSES[run.task](run, self.accelerator, self.data)
        self.samples = share_batch(run, len(self.task.data), self.accelerator)
        self.average = build_average(self.task.learner.raw, run)
        if self.average is not None:
            self.accelerator.register_for_checkpointing(self.average)
        if self.start.checkpoint is None:
            self.task.begin()
        else:
            self.start.load(self.accelerator, self._models())
        self.saved = self.step

    def train(self) -> int | None:
        """Train to the last step, or until a signal asks to stop.

        Returns:
            The number of the signal, if one ended the run early.

        Raises:
            BlockingIOError: If another process trains in the folder.
            OSError: If images cannot be read, or the run folder cannot be written to.
        """
        leads = self.accelerator.is_main_process
        if leads:
            self.folder.path.mkdir(parents=True, exist_ok=True)
        with (
            leave_io_errors_to_main_thread(),
            holding(self.folder.path) if leads else nullcontext(lambda: None) as check_folder,
        ):
            try:
                return self._train(check_folder)
            except OSError:
                check_folder()  # raises with the reason if the folder was removed
                raise

    def _train(self, check_folder: Callable[[], None]) -> int | None:
        training = self.run.training
        batches = self._load_batches()
        self._open_folder()
        before = self.start.read_log()
        log = self._open_log()
        watch, self.codes = self._watch_for_collapse(before), self._watch_codes(before)
        self.best = self.start.recall_best(before)
        stop = False
        with closing(log), note_signals() as noted, closing(batches):
            for batch in batches:
                log.add(batch.step, self.task.step(augment(batch, training)))
                log.note(batch.step, self.task.learner.conditioning)
                self.step = batch.step
                if self.average is not None:
                    self.average.update(self.task.learner.raw, first=self.step == 1)
                self._measure(log, watch)
                stop = self._asked_to_stop(noted)
                check_folder()
                self._write_what_is_due(log, last=stop or self.step == training.steps)
                if stop:
                    break
        self.accelerator.end_training()
        return noted[0] if stop and noted else None

    def _load_batches(self) -> Generator[Batch, None, None]:
        training = self.run.training
        sampler = StepSampler(
            size=len(self.task.data),
            batch_size=training.batch_size,
            samples=self.samples,
            seed=self.run.seed,
            first=self.step + 1,
            last=training.steps,
        )
        return load_batches(
            self.task.data, sampler, device=self.accelerator.device, workers=training.workers
        )

    def _open_folder(self) -> None:
        if self.accelerator.is_main_process:
            self.start.take_folder()
        self.accelerator.wait_for_everyone()
        self.accelerator.init_trackers(
            "logs", init_kwargs={"tensorboard": {"purge_step": self.step + 1}}
        )

    def _open_log(self) -> MetricsLog:
        training = self.run.training
        return MetricsLog(
            self.accelerator,
            self.folder.metrics,
            first=self.step,
            last=training.steps,
            batch_size=training.batch_size,
            guards=[learner.guard for learner in self.task.learners],
            max_skipped=training.max_skipped if training.on_nonfinite == "skip" else None,
        )

    def _watch_for_collapse(self, before: list[dict[str, Any]]) -> CollapseWatch | None:
        """Return a watch over the subspaces; None if their activeness is not measured."""
        if not self.run.training.activeness_steps or not self.task.generates:
            return None
        watch = CollapseWatch(every=self.run.training.activeness_steps, say=self._say)
        watch.restore(before)
        return watch

    def _watch_codes(self, before: list[dict[str, Any]]) -> CodeWatch | None:
        """Return a watch over the active codes; None if there are no codes."""
        if not isinstance(self.task, VAETask) or self.run.training.batch_size < 2:
            return None  # one image has no variance
        codes, steps = self.task.learner.raw.latent_dim, self.run.training.steps
        watch = CodeWatch(codes=codes, steps=steps, say=self._say)
        watch.restore(before)
        return watch

    def _measure(self, log: MetricsLog, watch: CollapseWatch | None) -> None:
        """Log the activeness and the validation scores that are due."""
        try:
            if watch is not None:
                log.note(self.step, watch.measure(self.step, self._averaged_model()))
            log.note(self.step, self._validate())
        except FloatingPointError:
            log.write(self.step)  # raises with the cause, if that was a loss or a gradient
            raise

    def _validate(self) -> Terms:
        """Return the validation scores if they are due; the best model is written at once."""
        model = self._averaged_model()
        scores = self.task.validate(self.step, model)
        if scores and (score := scores[VALIDATION_SCORE].item()) > self.best:
            self.best = score
            if self.accelerator.is_main_process:
                self.folder.export("best", model, self.step)
        return scores

    def _say(self, line: str) -> None:
        """Print a line above the progress bar."""
        if self.accelerator.is_main_process:
            tqdm.write(line, file=sys.stderr)

    def _averaged_model(self) -> ModelMixin:
        """Return the exponential moving average of the model, or the model if there is none."""
        return self.task.learner.raw if self.average is None else self.average.module

    def _write_what_is_due(self, log: MetricsLog, *, last: bool) -> None:
        training = self.run.training
        save = last or self.step % training.checkpoint_every == 0
        if save or self.step % training.log_every == 0:  # a loss that is not finite is not saved
            line = log.write(self.step)
            if self.codes is not None:
                self.codes.take({"step": self.step, **line})
        sheet = self.task.generates and (last or self.step % training.sample_every == 0)
        if save or sheet:
            models = self._models()
            check_weights(self.accelerator, models, self.step)
        if sheet:
            self._write_sheet()
        if save:
            self._write_models(models)
            save_checkpoint(
                self.accelerator,
                self.folder.checkpoints,
                self.step,
                keep=training.keep_checkpoints,
                facts=asdict(self.fingerprint),
            )
            self.saved = self.step

    @torch.no_grad()
    def _write_sheet(self) -> None:
        if not self.accelerator.is_main_process:
            return
        model = self._averaged_model()
        latents = model.sample_latents(SHEET, torch.Generator().manual_seed(self.run.seed))
        images = self.task.draw_samples(model, latents.to(self.accelerator.device))
        self.folder.samples.mkdir(exist_ok=True)
        file = self.folder.samples / f"step-{self.step:07}.png"
        file.unlink(missing_ok=True)  # it could be a link to anything
        image_grid(images, columns=8).save(file)

    def _write_models(self, models: Mapping[str, ModelMixin]) -> None:
        if not self.accelerator.is_main_process:
            return
        for name, model in models.items():
            self.folder.export(name, model, self.step)

    def _models(self) -> dict[str, ModelMixin]:
        """Return the models to write beside a checkpoint, whole, by the name of their folder."""
        average = {} if self.average is None else {"ema": self.average.module}
        exports = {name: whole_model(model) for name, model in self.task.exports.items()}
        return exports | average

    def _asked_to_stop(self, noted: list[int]) -> bool:
        """Return True if any process noted a signal, which they exchange when a line is due."""
        if self.accelerator.num_processes == 1:
            return bool(noted)
        if self.step % self.run.training.log_every:
            return False
        flag = torch.tensor(len(noted), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item())
