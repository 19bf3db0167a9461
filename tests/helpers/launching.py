"""How a command is launched on two processes of a machine that need not have GPUs."""

import os
import sys

ON_CPU = os.environ | {"ACCELERATE_USE_CPU": "true"}


def on_two_processes(module: str, *arguments: str) -> list[str]:
    """`accelerate launch`, with nothing taken from the user's own configuration of it."""
    return [
        *(sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"),
        *("--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"),
        # Whichever port is free: other tests launch at the same time.
        *("--dynamo_backend", "no", "--main_process_port", "0", "-m", module, *arguments),
    ]
