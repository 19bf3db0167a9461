"""Runs the benchmarks named on the command line, or all: each prints its table."""

import argparse
import importlib
from pathlib import Path

PREFIX = "bench_"


def main() -> None:
    files = sorted(Path(__file__).parent.glob(f"{PREFIX}*.py"))
    names = [file.stem.removeprefix(PREFIX) for file in files]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(names)}")
    chosen = parser.parse_args().names or names
    for name in chosen:
        if name not in names:
            parser.error(f"no benchmark {name!r}, choose from: {', '.join(names)}")
    for name in chosen:
        importlib.import_module(f"{__package__}.{PREFIX}{name}").main()


if __name__ == "__main__":
    main()
