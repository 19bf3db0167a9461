"""The section `objective` of the task `classification`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from disentangle.config.checks import check_not_negative, check_positive


@dataclass(frozen=True)
class ClassificationObjective:
    """Cross-entropy between the classes of images and what the network says.

    Attributes:
        label_smoothing: Share of the target that is spread over all classes.
        mixup: Parameter `α` of the Beta distribution of how two images are mixed; 0 mixes none.
        validation: Fraction of the training images, about the same of each class and the same
            in every run, that are not trained on but choose the model; 0 keeps the last one.
        validate_every: Steps between two validations; the last step always has one.
        test_split: Which images of the data set `disentangle evaluate` scores; `none` where there
            are none.
        pretrained: A file of weights of torchvision's network of the same depth to start from.
        pretrained_except: Modules that these weights are not for, such as `fc` where the classes
            are others; they start afresh.
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
