"""Run one part: print each result as a line of JSON, and all else to the standard error."""

import argparse
import json
import os
import sys
from dataclasses import asdict

import torch

from .harness import Setting, run_part


def main() -> None:
    """Run the part that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part")
    parser.add_argument("device")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries and child processes print
    if options.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    setting = Setting(torch.device(options.device), quick=options.quick)
    for result in run_part(options.part, setting):
        print(json.dumps(asdict(result)), file=results, flush=True)


if __name__ == "__main__":
    main()
