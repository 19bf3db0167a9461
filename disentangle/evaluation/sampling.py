"""How much is drawn of what is scored, and with which seed."""

from dataclasses import dataclass, field

from disentangle.evaluation.feature_sets import FeatureOptions


@dataclass(frozen=True)
class Draws:
    """How much is drawn of a target, and with which seed.

    Attributes:
        seed: Of every draw.
        points: Training points.
        test_points: Test points.
        latents: Latents around which each axis is moved.
        features: Networks and numbers of images for FID, KID and path lengths.

    Raises:
        ValueError: If a number is out of its range.
    """

    seed: int = 0
    points: int = 10_000
    test_points: int = 5_000
    latents: int = 300
    features: FeatureOptions = field(default_factory=FeatureOptions)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:  # what scikit-learn takes
            raise ValueError(f"seed must be between 0 and 2**32 - 1, got {self.seed}")
        for name, key in (
            ("points", "points"),
            ("test_points", "test_points"),
            ("activeness.latents", "latents"),
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, key)}")
