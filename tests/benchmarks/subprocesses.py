"""Benchmarks whose sides need a process each, since how a process keeps freed memory counts."""

import multiprocessing
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection

import torch
from torch.profiler import ProfilerActivity, profile

Parts = Mapping[str, Callable[[], object]]


def start(build: Callable[[], Parts]) -> Callable[[str], None]:
    """A process that does parts of a benchmark, as a function that has one done there.

    Args:
        build: Called there; the parts by name.
    """
    orders, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=_serve, args=(build, theirs), daemon=True).start()

    def ask(part: str) -> None:
        orders.send(part)
        orders.recv()

    return ask


def _serve(build: Callable[[], Parts], orders: Connection) -> None:
    torch.manual_seed(0)
    parts = build()
    with suppress(EOFError):  # the other side has ended
        while True:
            parts[orders.recv()]()
            orders.send(None)


def print_profile(function: Callable[[], object]) -> None:
    """Prints where the time of a call goes."""
    activities, device = [ProfilerActivity.CPU], "cpu"
    if torch.cuda.is_available():
        activities, device = [*activities, ProfilerActivity.CUDA], "cuda"
    with profile(activities=activities) as recorded:
        function()
    order = f"self_{device}_time_total"
    table = recorded.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=40)
    print(table, flush=True)
