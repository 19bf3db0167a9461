"""Interface of a training task."""

from abc import ABC, abstractmethod

from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.config import RunConfig
from disentangle.data import ImageData
from disentangle.models import Generator
from disentangle.training.batches import Batch
from disentangle.training.learner import Learner, Terms

VALIDATION_SCORE = "validation/top_1"


class Task(ABC):
    """Networks and how a batch trains them.

    Args:
        run: The run.
        accelerator: Accelerator to prepare networks and optimizers with.
        data: Data set of the run.

    Attributes:
        learner: Learner of the model that is averaged, sampled and treated by the techniques.
        data: Images to train on.

    Raises:
        ValueError: If the networks, the objective and the data do not go together.
    """

    learner: Learner
    data: ImageData

    @abstractmethod
    def __init__(self, run: RunConfig, accelerator: Accelerator, data: ImageData) -> None: ...

    @property
    def learners(self) -> list[Learner]:
        """Learners of all networks that are trained."""
        return [self.learner]

    @property
    def generates(self) -> bool:
        """True if the model is a generator."""
        return isinstance(self.learner.raw, Generator)

    @property
    @abstractmethod
    def exports(self) -> dict[str, ModelMixin]:
        """The models to save, by the name of their folder."""

    def begin(self) -> None:
        """Prepare a fresh run before its first step; a resumed run skips this.

        Raises:
            ValueError: If a file to start from does not fit.
            FileNotFoundError: If it is missing.
        """
        return

    @abstractmethod
    def step(self, batch: Batch) -> Terms:
        """Train on a batch and return the terms of the loss, each a 0-d tensor."""

    def draw_samples(self, model: ModelMixin, latents: Tensor) -> Tensor:
        """Return images `(N, C, H, W)` for a grid of samples; called for generators only.

        Args:
            model: The generator, or its average.
            latents: `(N, D)`.
        """
        raise NotImplementedError

    def validate(self, step: int, model: ModelMixin) -> Terms:
        """Return scores of a model on held-out images, or nothing where the step is not due.

        Every process takes part. The model with the highest `VALIDATION_SCORE` is kept as the best.

        Args:
            step: Number of optimizer steps made.
            model: The model, or its average.
        """
        return {}
