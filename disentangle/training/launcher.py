"""What `accelerate launch` may ask for, and what it may not."""

from accelerate.utils import parse_flag_from_env

REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FullyShardedDataParallel",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


def check_launcher() -> None:
    """Whether the networks are left whole in every process.

    Raises:
        ValueError: If they are to be divided or rewritten.
    """
    for variable, name in REFUSED.items():
        if parse_flag_from_env(variable):
            raise ValueError(
                f"{name} divides or flattens the parameters, which the techniques, the running "
                "average and the saved models need whole: launch with DistributedDataParallel "
                f"(accelerate launch --multi_gpu), got {variable}"
            )
