"""Checks of the processes that `accelerate launch` has started."""

import os

from accelerate.utils import (
    parse_flag_from_env,
)
from torch import distributed


def divides_networks() -> bool:
    """Return True if the launch asks FSDP to shard the parameters over the processes."""
    return parse_flag_from_env("ACCELERATE_USE_FSDP")


def check_joined(joined: int) -> None:
    """Raise unless all processes that were started have joined.

    Args:
        joined: Number of processes that Accelerate joined.

    Raises:
        ValueError: If some have not: each would act as the main process, and write.
    """
    started = int(os.environ.get("WORLD_SIZE", 1))
    if joined != started:
        raise ValueError(
            f"{started} processes were started, but accelerate joins {joined}: set "
            "ACCELERATE_USE_CPU=true to work on several processes without GPUs"
        )


def has_lost_process(error: RuntimeError) -> bool:
    """Return True if a collective operation failed because another process has ended.

    Gloo's errors have no type of their own.
    """
    return isinstance(error, distributed.DistError) or "gloo" in str(error)
