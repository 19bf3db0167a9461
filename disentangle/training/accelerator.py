"""Setup of Accelerate for a run, and checks of the options of `accelerate launch`."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    ProjectConfiguration,
    parse_flag_from_env,
)

from disentangle.config import ClassificationObjective, RunConfig
from disentangle.distributed.launch import check_joined, divides_networks

REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}
# Options that FSDP must be launched with: the variable, Accelerate's default and the needed value.
FSDP_OPTIONS = (
    ("FSDP_VERSION", "1", "2"),  # version 1 flattens the parameters
    # Loading shards in torch's format executes pickled code.
    ("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT", "FULL_STATE_DICT"),
    ("FSDP_AUTO_WRAP_POLICY", "NO_WRAP", "NO_WRAP"),
    ("FSDP_CPU_RAM_EFFICIENT_LOADING", "false", "false"),
    ("FSDP_OFFLOAD_PARAMS", "false", "false"),
    ("FSDP_ACTIVATION_CHECKPOINTING", "false", "false"),
)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 1 << 30  # bytes; larger blocks are still taken from, and returned to, the system

Need = tuple[str, object, str, bool]


def build_accelerator(run: RunConfig, folder: Path) -> Accelerator:
    """Set up Accelerate from the run and from the options of `accelerate launch`.

    Args:
        run: The run.
        folder: Folder of the run, in which the trackers write.

    Raises:
        ValueError: If the options are not supported, or contradict the run.
    """
    check_launcher()
    keep_freed_memory()
    if run.training.cpu_threads:
        torch.set_num_threads(run.training.cpu_threads)
    accelerator = Accelerator(
        # Apple's GPUs have no float64, in which the orthogonality techniques work.
        cpu=torch.backends.mps.is_available(),
        mixed_precision=run.training.mixed_precision,
        gradient_accumulation_steps=run.training.accumulation,
        log_with="tensorboard",
        project_config=ProjectConfiguration(str(folder), logging_dir=str(folder)),
    )
    check_joined(accelerator.num_processes)
    if (parts := accelerator.gradient_accumulation_steps) != run.training.accumulation:
        raise ValueError(
            f"accelerate launch asks for {parts} accumulation steps and the run for "
            f"{run.training.accumulation}: choose training.accumulation"
        )
    divide_on_cpus(accelerator)
    check_divided_run(run, accelerator)
    return accelerator


def check_launcher() -> None:
    """Raise if the launcher asks for an unsupported backend or FSDP option.

    Raises:
        ValueError: If it asks for DeepSpeed, Megatron-LM, or FSDP with other than `FSDP_OPTIONS`.
    """
    for variable, name in REFUSED.items():
        if parse_flag_from_env(variable):
            raise ValueError(
                f"{name} divides or flattens the parameters, which the techniques, the running "
                "average and the saved models need whole: launch with DistributedDataParallel "
                f"(accelerate launch --multi_gpu) or FSDP2, got {variable}"
            )
    if divides_networks():
        for variable, default, needed in FSDP_OPTIONS:
            if (value := os.environ.get(variable, default)).lower() != needed.lower():
                option = variable.lower()
                raise ValueError(f"{option} of accelerate launch must be {needed}, got {value}")


def divide_on_cpus(accelerator: Accelerator) -> None:
    """Enable FSDP2 on CPUs if the launch asks for it, which Accelerate would silently ignore."""
    if divides_networks() and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # All instances of either state class share their attributes.
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
        PartialState().distributed_type = DistributedType.FSDP


def check_divided_run(run: RunConfig, accelerator: Accelerator) -> None:
    """Raise if the launch asks for FSDP2 and the run's results would differ from one process.

    Raises:
        ValueError: If there is one process only, or the run has an unsupported option.
    """
    if not divides_networks():
        return
    if accelerator.distributed_type != DistributedType.FSDP:
        raise ValueError("FSDP needs several processes to shard networks over, got one")
    for option, value, needed, given in _needs(run, accelerator):
        if not given:
            raise ValueError(f"{option} must be {needed} under FSDP, got {value}")


def _needs(run: RunConfig, accelerator: Accelerator) -> Iterator[Need]:
    precision, kind = accelerator.mixed_precision, run.optimizer.kind
    yield "the mixed precision", precision, "no", precision == "no"
    backend = accelerator.state.dynamo_plugin.backend.value.lower()
    yield "the dynamo backend", backend, "no", backend == "no"
    yield "training.compile", run.training.compile, "false", not run.training.compile
    # A single process cannot run a sharded model, to draw samples; each has the whole average.
    half_life = run.training.ema_half_life
    yield "training.ema_half_life", half_life, "positive", half_life > 0
    # torch has no fused kernel of SGD for sharded parameters.
    yield "optimizer.kind", kind, "adam or adamw", kind != "sgd"
    name = run.model["name"]
    yield "model.name", name, "another than latent_vae", name != "latent_vae"
    if isinstance(run.objective, ClassificationObjective):
        file = run.objective.pretrained
        yield "objective.pretrained", file, "left out", file is None


def keep_freed_memory() -> None:
    """Ask the GNU C library to keep freed blocks for later allocations.

    Otherwise every large tensor on a CPU is new memory, which the system zeroes page by page on
    first access: a fifth of a training step of a small VAE. The process then keeps the memory of
    its largest step to the end. No effect on other systems than Linux and other C libraries.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, LARGEST)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
