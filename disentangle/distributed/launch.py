"""How `accelerate launch` started the processes, and whether they still work together."""

import os

from accelerate.utils import (
    parse_flag_from_env,
)
from torch import distributed


def divides_networks() -> bool:
    """Whether FSDP is to divide the parameters over the processes."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def check_joined(joined: int) -> None:
    """Whether as many processes work together as were started.

    Raises:
        ValueError: If they do not: each would take itself for the first, and write.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if joined != started:
        raise ValueError(
            f"{started} processes were started, but accelerate joins {joined}: set "
            "ACCELERATE_USE_CPU=true to work on several processes without GPUs"
        )


def has_lost_process(error: RuntimeError) -> bool:
    """Tell whether an error is that of a collective operation whose other processes have ended.

    Gloo's errors have no type of their own.
    """
    return isinstance(error, distributed.DistError) or "gloo" in str(error)
