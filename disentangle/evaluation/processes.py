"""Work that the processes of `accelerate launch` share: each does a part, all get the whole."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from torch import Tensor

from disentangle.distributed.launch import check_joined

# The first process may fit classifiers for hours while the others wait for its next images.
PATIENCE = timedelta(days=2)
ENCODED = 512  # images that a process renders and encodes at once
DECODED = 32  # images that a process decodes at once
BATCH = 8 * DECODED  # images that a metric asks for at once, so that several processes have work
T = TypeVar("T")


class Processes:
    """The processes that score together; one, unless `accelerate launch` started several.

    Attributes:
        count: How many there are.
        is_first: Whether this is the one that prints, writes, and computes what is not shared.
        device: The device that was assigned to this process.

    Raises:
        ValueError: If several were started that cannot join or do not know each other; each would
            write.

    Examples:
        >>> processes = Processes()
        >>> processes.map(torch.neg, torch.arange(5), chunk=2)
        tensor([ 0, -1, -2, -3, -4])
    """

    def __init__(self) -> None:
        state = _join()
        self.count: int = state.num_processes
        self.index: int = state.process_index
        self.is_first = self.index == 0
        self.device: torch.device = state.device

    def map(self, function: Callable[..., Tensor], *inputs: Tensor, chunk: int) -> Tensor:
        """The rows that a function gives for the rows of its inputs, known to every process.

        The chunks are the same whatever the number of processes is, and so are the numbers: how a
        batch is divided can change the last bit of what a network computes.

        Args:
            function: Gives a tensor `(n, …)` for `n` rows of each input.
            *inputs: Of `N ≥ 1` rows each, the same for every process.
            chunk: Rows that the function is given at once.

        Returns:
            Shape `(N, …)`.

        Raises:
            SharedError: In every process, if the function raises an error in one of several.
        """

        def fill() -> Tensor:
            rows = len(inputs[0])
            starts = range(0, rows, chunk)[self.index :: self.count]
            parts = [function(*(x[start : start + chunk] for x in inputs)) for start in starts]
            if self.count == 1:
                return torch.cat(parts)
            # A process without a chunk of its own needs to know the shape all the same.
            like = parts[0] if parts else function(*(x[:1] for x in inputs))
            whole = like.new_zeros(rows, *like.shape[1:])
            for start, part in zip(starts, parts, strict=True):
                whole[start : start + chunk] = part
            return whole

        whole = self.together(fill)
        if self.count > 1:
            torch.distributed.all_reduce(whole)  # each row is zero but in one process
        return whole

    def on_first(self, function: Callable[[], T]) -> T:
        """Compute something in the first process and send it to all; it must be picklable.

        Raises:
            SharedError: In every process, if the function raises an error in one of several.
        """
        values: list[Any] = [self.together(function if self.is_first else lambda: None)]
        if self.count > 1:
            broadcast_object_list(values)
        return values[0]

    def together(self, function: Callable[[], T]) -> T:
        """Call a function in every process, and raise in all if it fails in any.

        A process that went on alone would wait in vain for the others' part of what is shared. So
        every process must call this as often as the others; one whose function fails before it
        gets to a call inside of it meets the others at that call.

        Raises:
            SharedError: In every process, if the function raises an error in one of several.
        """
        if self.count == 1:
            return function()
        value: Any = None
        failure: Exception | None = None
        try:
            value = function()
        except SharedError:
            raise  # all know of it
        except Exception as error:
            failure = error
        reasons: list[str | None] = [None] * self.count
        reason = None if failure is None else describe_error(failure)
        torch.distributed.all_gather_object(reasons, reason)
        if any(reasons):
            raise SharedError(next(reason for reason in reasons if reason)) from failure
        return value

    def leave(self) -> None:
        """Ends the work together; a process that just stopped could take the others down."""
        if self.count > 1:
            PartialState().wait_for_everyone()
            PartialState().destroy_process_group()


def _join() -> PartialState:
    started = int(os.environ.get("WORLD_SIZE", 1))
    try:
        # As `Accelerator` does, which `PartialState` leaves to its caller.
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{started} processes were started, but cannot join: {error}") from error
    check_joined(state.num_processes)
    return state


def leads_its_machine() -> bool:
    """Return True in the first process of a machine, also before the processes join."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


@contextmanager
def silence(*, unless: bool) -> Iterator[None]:
    """Keeps what its body prints from the terminal, unless this process is to speak."""
    with ExitStack() as stack:
        if not unless:
            void = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(void))
            stack.enter_context(redirect_stderr(void))
        yield


class SharedError(RuntimeError):
    """Error of one process, raised in all of them; its message is the description."""


def describe_error(error: Exception) -> str:
    """The first line of an error's message, after its kind unless that is bad input.

    Examples:
        >>> describe_error(ValueError("bins must be at least 2"))
        'bins must be at least 2'
        >>> describe_error(OSError("no space left"))
        'OSError: no space left'
        >>> describe_error(MemoryError())
        'MemoryError'
    """
    line = next(iter(str(error).strip().splitlines()), "")
    if line and isinstance(error, ValueError | SharedError):
        return line
    return ": ".join(filter(None, (type(error).__name__, line)))
