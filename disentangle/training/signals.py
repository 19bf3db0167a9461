"""Deferred handling of signals that ask a run to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from disentangle.data.workers import STOPPING


@contextmanager
def note_signals() -> Iterator[list[int]]:
    """Collect signals to stop in the block; a second one of the same kind has its usual effect.

    SIGHUP, which a closing terminal sends, stays ignored if it already is, as under `nohup`.

    Examples:
        >>> with note_signals() as noted:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     noted == [signal.SIGTERM]
        True
    """
    noted: list[int] = []
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in STOPPING}
    if previous[signal.SIGHUP] == signal.SIG_IGN:
        del previous[signal.SIGHUP]

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
