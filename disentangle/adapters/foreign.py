"""Calls of other people's functions."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def called(what: str) -> Iterator[None]:
    """Turns whatever a foreign function raises into a `ValueError`, since that may be anything.

    Args:
        what: Which function, and what it must do.

    Examples:
        >>> with called("decode must take latents"):
        ...     {}["z"]
        Traceback (most recent call last):
        ValueError: decode must take latents, but raised KeyError: 'z'
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{what}, but raised {type(error).__name__}: {reason}") from error
