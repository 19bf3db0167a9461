"""What the benchmarks share: measuring and printing."""

import statistics
import time
from collections.abc import Callable, Sequence


def median_seconds(function: Callable[[], object], repeats: int = 7) -> float:
    """Median wall-clock seconds of a call, after one call to warm up."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def median_seconds_each(
    functions: Sequence[Callable[[], object]], repeats: int = 15
) -> list[float]:
    """Median wall-clock seconds of a call of each, taken in turns: other load hits all alike."""
    return [statistics.median(record) for record in seconds_each(functions, repeats)]


def seconds_each(
    functions: Sequence[Callable[[], object]], repeats: int, *, warm_up: int = 1
) -> list[list[float]]:
    """Wall-clock seconds of every call of each, taken in turns after some calls to warm up."""
    for _ in range(warm_up):
        for function in functions:
            function()
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, record in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            record.append(time.perf_counter() - start)
    return seconds


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: the first column to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for first, *others in lines:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))
