"""Signals that ask a run to stop, taken note of instead of obeyed at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def note_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM while inside; a second one of them acts as it always does.

    Examples:
        >>> with note_signals() as noted:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     noted == [signal.SIGTERM]
        True
    """
    noted: list[int] = []
    previous: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.signal(number, previous[number])

    for number in previous:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
