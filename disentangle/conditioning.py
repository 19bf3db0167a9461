"""Conditioning of layers, under the name that it had before it moved to `orthogonality`."""

from disentangle.orthogonality.conditioning import (
    MEASURES,
    QUANTITIES,
    Conditioning,
    ConditioningProbe,
    covariance_conditioning,
    gradient_conditioning,
    measure_name,
    split_measure_name,
    weight_conditioning,
)

__all__ = [
    "MEASURES",
    "QUANTITIES",
    "Conditioning",
    "ConditioningProbe",
    "covariance_conditioning",
    "gradient_conditioning",
    "measure_name",
    "split_measure_name",
    "weight_conditioning",
]
