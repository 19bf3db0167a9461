"""Tolerance of a run for a terminal that closes or cannot be written to."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import Any, TextIO


class BestEffortStream:
    """Text stream that drops what cannot be written.

    Args:
        stream: Stream to write to; all other attributes are its own.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write the text, or drop it on an error."""
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream, and ignore errors."""
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def leave_io_errors_to_main_thread() -> Iterator[None]:
    """Keep threads that fail to write from printing a traceback.

    TensorBoard writes in a thread of its own, and raises the error again in the logging thread.
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
    """Ignore write errors of the standard error, which may be closed or on a full disk."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stderr(BestEffortStream(sys.stderr or nowhere)),
    ):
        yield
