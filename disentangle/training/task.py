"""What the shell needs of a task."""

from abc import ABC, abstractmethod

from accelerate import Accelerator
from diffusers import ModelMixin
from torch import Tensor

from disentangle.config import RunConfig
from disentangle.training.batches import Batch
from disentangle.training.learner import Learner, Terms


class Task(ABC):
    """Networks and how a batch trains them.

    Args:
        run: The run.
        accelerator: What networks and optimizers are prepared with.

    Attributes:
        learner: Of the model whose average, samples and Pre-SVD parameters are of interest.
    """

    learner: Learner

    @abstractmethod
    def __init__(self, run: RunConfig, accelerator: Accelerator) -> None: ...

    @property
    @abstractmethod
    def exports(self) -> dict[str, ModelMixin]:
        """The models to save, by the name of their folder."""

    @abstractmethod
    def step(self, batch: Batch) -> Terms:
        """Trains on a batch and reports the terms of the loss, each a 0-d tensor."""

    @abstractmethod
    def draw_samples(self, model: ModelMixin, latents: Tensor, images: Tensor) -> Tensor:
        """Images `(N, C, H, W)` for a sheet of samples.

        Args:
            model: The model, or its average.
            latents: `(N, D)`.
            images: Of the data set, `(N, C, H, W)` in `[-1, 1]`.
        """
