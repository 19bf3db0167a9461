"""`accelerate launch -m disentangle.train --config configs/X.yaml [--a.b value …]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from disentangle.commands import bad_input_exits
from disentangle.parsing import parse_run
from disentangle.plain_text import show_plainly
from disentangle.training.checkpoints import later_checkpoints
from disentangle.training.loop import Session
from disentangle.training.terminal import outlive_terminal


def main(arguments: Sequence[str]) -> int:
    """Trains a run.

    Returns:
        The exit status: 0; 1 when a loss was no longer finite or a file could not be
        written or read; 128 + N when signal N ended the run.
    """
    with outlive_terminal():
        return _main(arguments)


def _main(arguments: Sequence[str]) -> int:
    with bad_input_exits("train"):
        run, options = parse_run(arguments)
        session = Session(run, resume=options.resume, overwrite=options.overwrite)
    try:
        stopped_by = session.train()
    except FloatingPointError as error:
        if session.accelerator.is_main_process:  # in every process alike
            text = f"{error}; {name_checkpoint(session.folder.checkpoints)}; lower optimizer.lr?"
            print(show_plainly(f"disentangle train: error: {text}"), file=sys.stderr)
        return 1
    except OSError as error:
        text = f"{error}; {name_checkpoint(session.folder.checkpoints)}"
        print(show_plainly(f"disentangle train: error: {text}"), file=sys.stderr)
        return 1
    if stopped_by is not None:
        print(f"stopped at step {session.step}; go on with --resume", file=sys.stderr)
        return 128 + stopped_by
    return 0


def name_checkpoint(folder: Path) -> str:
    """Which checkpoint a run that has ended badly can go on from."""
    if not (steps := later_checkpoints(folder, 0)):
        return "there is no checkpoint yet"
    return f"the last good checkpoint is step-{steps[-1]}, from which --resume goes on"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
