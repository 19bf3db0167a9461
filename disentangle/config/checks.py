"""Checks that the sections of a run share."""

from collections.abc import Mapping
from dataclasses import fields
from math import isfinite
from typing import Any


def check_positive(config: Any, *names: str) -> None:
    """Raise unless the options of a section are positive and finite.

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
    """Raise unless the options of a section are non-negative and finite, or None.

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
    """Raise if an option that requires another choice is not at its default.

    Args:
        config: Section of a run, a dataclass.
        choice: Name of the option that makes the choice, such as `kind`.
        choices_of: Choices that use each of the other options.

    Raises:
        ValueError: If the choice does not use an option that is not at its default.
    """
    chosen, defaults = getattr(config, choice), {f.name: f.default for f in fields(config)}
    for name, choices in choices_of.items():
        if chosen not in choices and getattr(config, name) != defaults[name]:
            section = _section(config)
            raise ValueError(
                f"{section}.{name} requires {section}.{choice} {' or '.join(choices)}, got {chosen}"
            )


def _check_finite(config: Any, name: str) -> None:
    value = getattr(config, name) or 0
    if isinstance(value, int) and not -(2**63) < value < 2**63:
        raise ValueError(f"{_section(config)}.{name} must have 64 bits, got a larger number")
    if not isfinite(value):
        raise ValueError(f"{_section(config)}.{name} must be finite, got {value}")


def _section(config: Any) -> str:
    """Return the name of the section of a run that a dataclass configures."""
    name = type(config).__name__
    return "objective" if name.endswith("Objective") else name.removesuffix("Config").lower()
