"""The task `classification`: a classifier, selected by its accuracy on held-out images."""

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor
from torch.nn.functional import cross_entropy

from disentangle.config import ClassificationObjective, RunConfig
from disentangle.data import ImageData, LabelledImages, hold_out
from disentangle.evaluation.classify import classify
from disentangle.metrics import accuracy
from disentangle.models import load_torchvision_weights
from disentangle.output.text import cut
from disentangle.training.augmentation import mix
from disentangle.training.batches import Batch, images_at_once
from disentangle.training.learner import Learner, Terms
from disentangle.training.task import Task


class ClassificationTask(Task):
    """Task that trains a classifier on the cross-entropy of its logits.

    Attributes:
        learner: Learner of the classifier.
        held_out: Validation images, or None if none are held out.
    """

    def __init__(self, run: RunConfig, accelerator: Accelerator, data: ImageData) -> None:
        assert isinstance(run.objective, ClassificationObjective)
        self.run, self.objective, self.accelerator = run, run.objective, accelerator
        self.parts = run.training.accumulation
        self.data, self.held_out = divide(run, check_classes(run, data))
        check_test_images(run)
        if images_at_once(run, accelerator.num_processes) < 2:
            raise ValueError(
                "batch normalisation needs at least 2 images at once, got 1: raise "
                "training.batch_size"
            )
        model = run.build_model().to(accelerator.device)
        self.learner = Learner(run, accelerator, model, treated=True)

    @property
    def exports(self) -> dict[str, ModelMixin]:
        """The classifier."""
        return {"model": self.learner.raw}

    def begin(self) -> None:
        """Load the pretrained weights, if the run names any."""
        if (file := self.objective.pretrained) is not None:
            left_out = self.objective.pretrained_except
            load_torchvision_weights(self.learner.raw, file, leave_out=left_out)

    def step(self, batch: Batch) -> Terms:
        """Train on a batch, and return its loss and accuracy."""
        return self.learner.descend(batch.split(self.parts), self._loss)

    def validate(self, step: int, model: ModelMixin) -> Terms:
        """Return the accuracy and cross-entropy on the held-out images, if they are due."""
        due = step % self.objective.validate_every == 0 or step == self.run.training.steps
        if self.held_out is None or not due:
            return {}
        training = self.run.training
        logits = classify(
            model,
            self.held_out,
            self.accelerator,
            batch_size=training.batch_size // self.accelerator.num_processes,
            workers=training.workers,
        )
        if not logits.isfinite().all():
            raise FloatingPointError(f"the classifier's logits are not finite after step {step}")
        scores = accuracy(logits, self.held_out.labels)
        values = {"top_1": scores.score, "top_5": scores.top_5, "loss": scores.cross_entropy}
        device = self.accelerator.device
        return {
            f"validation/{name}": torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in values.items()
        }

    def _loss(self, part: Batch) -> tuple[Tensor, Terms]:
        assert part.labels is not None
        smoothing = self.objective.label_smoothing
        if not self.objective.mixup:
            logits = self.learner.network(part.images)
            loss = cross_entropy(logits.float(), part.labels, label_smoothing=smoothing)
        else:
            images, others, share = mix(part, self.objective.mixup)
            logits = self.learner.network(images).float()
            own = cross_entropy(logits, part.labels, label_smoothing=smoothing)
            loss = share * own + (1 - share) * cross_entropy(
                logits, others, label_smoothing=smoothing
            )
        right = (logits.argmax(1) == part.labels).float().mean()
        return loss, {"loss": loss, "train/top_1": right}


def check_classes(run: RunConfig, data: ImageData) -> LabelledImages:
    """Return the data set if its classes match the model.

    Raises:
        ValueError: If it has no classes, another number of them, or one without images.
    """
    name, classes = run.data["name"], run.model["classes"]
    if not isinstance(data, LabelledImages):
        raise ValueError(f"the task classification needs images with classes: {name!r} has none")
    if len(data.class_names) != classes:
        raise ValueError(
            f"model.classes is {classes}, but the data set {name!r} has {len(data.class_names)}"
        )
    counts = np.bincount(data.labels, minlength=classes)
    if not counts.all():
        missing = [data.class_names[k] for k in np.flatnonzero(counts == 0)]
        names = cut(", ".join(missing), 80)
        raise ValueError(f"{name!r} has no training images of the classes: {names}")
    return data


def check_test_images(run: RunConfig) -> None:
    """Raise unless the data set has a test split that the run is not trained on.

    Raises:
        ValueError: If the run is trained on the test split, or it cannot be read.
    """
    assert isinstance(run.objective, ClassificationObjective)
    split, name = run.objective.test_split, run.data["name"]
    if split == "none":
        return
    if run.data.get("split") == split:
        raise ValueError(f"data.split must differ from objective.test_split, got {split} for both")
    changes = {"split": split} | ({"check": False} if "check" in run.data else {})
    try:
        run.build_data(**changes)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"{name!r} cannot be tested with objective.test_split {split} (choose none to skip the "
            f"test): {error}"
        ) from error


def divide(run: RunConfig, data: LabelledImages) -> tuple[LabelledImages, LabelledImages | None]:
    """Split the data set into training images and, if the run asks for them, held-out ones.

    Raises:
        ValueError: If a class has too few images.
    """
    assert isinstance(run.objective, ClassificationObjective)
    if not run.objective.validation:
        return data, None
    try:
        return hold_out(data, run.objective.validation)
    except ValueError as error:
        raise ValueError(f"objective.validation {run.objective.validation}: {error}") from error
