"""What the shell needs of a task."""

from abc import ABC, abstractmethod

from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.config import RunConfig
from disentangle.data import ImageData
from disentangle.training.batches import Batch
from disentangle.training.learner import Learner, Terms

VALIDATION_SCORE = "validation/top_1"


class Task(ABC):
    """Networks and how a batch trains them.

    Args:
        run: The run.
        accelerator: What networks and optimizers are prepared with.
        data: The data set of the run.

    Attributes:
        learner: Of the model whose average, samples and Pre-SVD parameters are of interest.
        data: The images that batches are made of.

    Raises:
        ValueError: If the networks, the objective and the data do not go together.
    """

    learner: Learner
    data: ImageData

    @abstractmethod
    def __init__(self, run: RunConfig, accelerator: Accelerator, data: ImageData) -> None: ...

    @property
    def learners(self) -> list[Learner]:
        """Of everything that is trained."""
        return [self.learner]

    @property
    @abstractmethod
    def exports(self) -> dict[str, ModelMixin]:
        """The models to save, by the name of their folder."""

    def begin(self) -> None:
        """What a fresh run does before its first step, and one that is resumed does not.

        Raises:
            ValueError: If a file to start from does not fit.
            FileNotFoundError: If it is missing.
        """
        return

    @abstractmethod
    def step(self, batch: Batch) -> Terms:
        """Trains on a batch and reports the terms of the loss, each a 0-d tensor."""

    def draw_samples(self, model: ModelMixin, latents: Tensor) -> Tensor:
        """Images `(N, C, H, W)` for a sheet of samples; only asked of a task with a generator.

        Args:
            model: The generator, or its average.
            latents: `(N, D)`.
        """
        raise NotImplementedError

    def validate(self, step: int, model: ModelMixin) -> Terms:
        """Scores of a model on images that it was not trained on, where the step is due.

        Every process takes part. The model with the highest `VALIDATION_SCORE` is kept as the best.

        Args:
            step: The optimizer step that was made.
            model: The model, or its average.
        """
        return {}
