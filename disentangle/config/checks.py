"""Checks that the sections of a run share."""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from typing import Any


def check_positive(config: Any, *names: str) -> None:
    """Whether the options of a section are positive numbers, not infinite.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        _check_finite(config, name)
        if getattr(config, name) <= 0:
            raise ValueError(
                f"{_section(config)}.{name} must be positive, got {getattr(config, name)}"
            )


def check_not_negative(config: Any, *names: str) -> None:
    """Whether the options of a section are 0, positive numbers that are not infinite, or None.

    Raises:
        ValueError: If one is not.
    """
    for name in names:
        _check_finite(config, name)
        if (getattr(config, name) or 0) < 0:
            raise ValueError(
                f"{_section(config)}.{name} must not be negative, got {getattr(config, name)}"
            )


def check_fit(config: Any, choice: str, choices_of: Mapping[str, tuple[str, ...]]) -> None:
    """Whether each option that has a meaning with some choices only is used with one of them.

    Args:
        config: A section of a run, a dataclass.
        choice: The option that is chosen by name.
        choices_of: The choices with which each other option has a meaning.

    Raises:
        ValueError: If one is not at its default and has no meaning.
    """
    chosen, defaults = getattr(config, choice), {f.name: f.default for f in fields(config)}
    for name, choices in choices_of.items():
        if chosen not in choices and getattr(config, name) != defaults[name]:
            section = _section(config)
            raise ValueError(
                f"{section}.{name} goes with {section}.{choice} {' or '.join(choices)}, "
                f"got {chosen}"
            )


def _check_finite(config: Any, name: str) -> None:
    value = getattr(config, name) or 0
    if isinstance(value, int) and not -(2**63) < value < 2**63:
        raise ValueError(f"{_section(config)}.{name} must have 64 bits, got a larger number")
    if not isfinite(value):
        raise ValueError(f"{_section(config)}.{name} must be a number, got {value}")


def _section(config: Any) -> str:
    """The section of a run that a configuration is."""
    name = type(config).__name__
    return "objective" if name.endswith("Objective") else name.removesuffix("Config").lower()
