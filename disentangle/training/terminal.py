"""The terminal that a run reports to, and may outlive."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any, TextIO


class BestEffortStream:
    """A stream of text that can be done without: what cannot be written to it is lost.

    Args:
        stream: Where the text goes. Everything but writing is left to it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Writes, or does not."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or does not."""
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def leave_io_errors_to_main_thread() -> Iterator[None]:
    """Keep threads that fail to write from printing a traceback.

    TensorBoard writes in a thread of its own, and raises its error again in the thread that logs.
    """
    default = threading.excepthook

    def report(arguments: threading.ExceptHookArgs) -> None:
        if not issubclass(arguments.exc_type, OSError):
            default(arguments)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = default


@contextmanager
def outlive_terminal() -> Iterator[None]:
    """Lets nothing inside end because the standard error is closed, gone or on a full disk."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stderr(BestEffortStream(sys.stderr or nowhere)),
    ):
        yield
