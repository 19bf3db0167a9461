"""The classifier of a run, with the images that it is tested on."""

from functools import cached_property

import torch
from diffusers import ModelMixin
from numpy.typing import NDArray
from torch import Tensor

from disentangle.data import LabelledImages
from disentangle.evaluation.classify import classify_images
from disentangle.evaluation.processes import DECODED, Processes
from disentangle.evaluation.progress import Progress
from disentangle.evaluation.representations import Target
from disentangle.evaluation.request import Draws


class ClassifierTarget(Target):
    """The classifier of a run, with the images that it is tested on.

    Every process must ask for the same things in the same order: classifying is shared.

    Args:
        name: Name in tables and messages.
        model: Classifier.
        data: Images that it was neither trained nor selected on.
        split: Name of these images among those of the data set.
        draws: Numbers of random draws, and their seed.
        processes: Processes that classify.
        device: Device to compute on.
    """

    def __init__(
        self,
        name: str,
        model: ModelMixin,
        data: LabelledImages,
        *,
        split: str,
        draws: Draws,
        processes: Processes,
        device: torch.device,
    ) -> None:
        self.name, self.model, self.data, self.draws = name, model, data, draws
        self.split, self.processes, self.device = split, processes, device
        self.progress = Progress(shown=processes.is_first)
        self.peers = (self,)
        self.offers = {"classifier"}

    @cached_property
    def logits(self) -> Tensor:
        """The logits of all images, `(N, classes)`."""
        self.model.to(self.device)

        def look(indices: Tensor) -> Tensor:
            return classify_images(self.model, self.data.__getitems__(indices.cpu().numpy()))

        places = torch.arange(len(self.data), device=self.device)
        return self.processes.map(look, places, chunk=DECODED)

    @property
    def labels(self) -> NDArray:
        """The right classes, int64 `(N,)`."""
        return self.data.labels
