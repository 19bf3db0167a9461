"""Base of what metrics return: a number that the definition gives is never NaN."""

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np


@dataclass(frozen=True, eq=False)
class Result:
    """Base of the results of metrics; refuses NaN that no definition leaves undefined.

    Attributes:
        undefined: Names of the fields that may hold NaN, each documented where it is defined.

    Raises:
        FloatingPointError: If another field holds NaN: the computation went wrong, and "not
            defined" would hide it.

    Examples:
        >>> @dataclass(frozen=True)
        ... class Share(Result):
        ...     score: float
        >>> Share(float("nan"))
        Traceback (most recent call last):
        FloatingPointError: score of Share must be a number, got NaN: the computation broke down
    """

    undefined: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        for field in fields(self):
            values = getattr(self, field.name)
            numbers = isinstance(values, float) or getattr(values, "dtype", None) == np.float64
            if numbers and field.name not in self.undefined and np.isnan(values).any():
                raise FloatingPointError(
                    f"{field.name} of {type(self).__name__} must be a number, got NaN: the "
                    "computation broke down"
                )
