"""The section `objective` of the task `classification`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from disentangle.config.checks import check_not_negative, check_positive


@dataclass(frozen=True)
class ClassificationObjective:
    """Cross-entropy of the network's logits.

    Attributes:
        label_smoothing: Share of the target that is spread over all classes.
        mixup: Parameter `α` of the Beta distribution of mixup; 0 turns mixup off.
        validation: Fraction of the training images, about the same of each class and the same
            in every run, that are held out to select the best model; 0 keeps the last model.
            Published errors are mostly those of the best epoch on the test set, trained on all
            images; held-out images are not trained on, so the error here is higher.
        validate_every: Steps between two validations; the last step always has one.
        test_split: Split of the data set that `disentangle evaluate` scores; `none` if it has none.
        pretrained: File of weights of torchvision's network of the same depth to start from.
        pretrained_except: Modules to initialise at random instead, such as `fc` if the classes
            differ.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    validation: float = 0.1
    validate_every: int = 1000
    test_split: Literal["test", "val", "none"] = "test"
    pretrained: Path | None = None
    pretrained_except: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_positive(self, "validate_every")
        check_not_negative(self, "mixup")
        for name in ("label_smoothing", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"objective.{name} must lie in [0, 1), got {getattr(self, name)}")
