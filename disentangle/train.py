"""`accelerate launch -m disentangle.train --config configs/X.yaml [--a.b value …]`."""

import sys
from collections.abc import Sequence

from disentangle.cli.common import bad_input_exits
from disentangle.config.parse import parse_run
from disentangle.distributed.launch import has_lost_process
from disentangle.output.text import escape_control_characters
from disentangle.runs.checkpoints import later_checkpoints
from disentangle.training.starts import Starts, plan_starts
from disentangle.training.terminal import outlive_terminal
from disentangle.training.trainer import Trainer


def main(arguments: Sequence[str]) -> int:
    """Trains a run.

    Returns:
        The exit status: 0; 1 when a loss was no longer finite, a file could not be written or
        read, or another process of the run or one of its starts ended badly; 128 + N when signal N
        ended the run.
    """
    with outlive_terminal():
        return _main(arguments)


def _main(arguments: Sequence[str]) -> int:
    with bad_input_exits("train"):
        run, options = parse_run(arguments)
        flags = {"resume": options.resume, "overwrite": options.overwrite}
        run, starts = plan_starts(run, **flags)
        if starts is None:
            trainer = Trainer(run, **flags)
    if starts is not None:
        return _train_starts(starts)
    try:
        stopped_by = trainer.train()
    except FloatingPointError as error:  # in every process alike
        if trainer.accelerator.is_main_process:
            _report(f"{error}; {describe_checkpoint(trainer)}; lower optimizer.lr?")
        return 1
    except OSError as error:
        _report(f"{error}; {describe_checkpoint(trainer)}")
        return 1
    except RuntimeError as error:
        if not has_lost_process(error):
            raise
        _report(f"another process of the run ended; {describe_checkpoint(trainer)}")
        return 1
    if stopped_by is not None:
        print(f"stopped at step {trainer.step}; continue with --resume", file=sys.stderr)
        return 128 + stopped_by
    return 0


def _train_starts(starts: Starts) -> int:
    try:
        stopped_by = starts.train(main)
    except OSError as error:
        _report(f"{error}; continue with --resume")
        return 1
    if stopped_by is not None:
        print("stopped before the best start was chosen; continue with --resume", file=sys.stderr)
        return 128 + stopped_by
    return 0


def _report(text: str) -> None:
    print(escape_control_characters(f"disentangle train: error: {text}"), file=sys.stderr)


def describe_checkpoint(trainer: Trainer) -> str:
    """Name the checkpoint that a run which has ended badly can be resumed from."""
    if steps := later_checkpoints(trainer.folder.checkpoints, 0):
        return f"the last good checkpoint is step-{steps[-1]}; continue from it with --resume"
    if trainer.saved:
        return f"the last good checkpoint was step-{trainer.saved}"
    return "there is no checkpoint yet"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
