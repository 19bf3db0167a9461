"""Parameters sharded over processes as DTensors: FSDP2 (`fully_shard`) and tensor parallelism.

`torch.distributed.tensor` takes most of a second to import, so it is imported for DTensors only.
"""

from typing import Any, TypeGuard

from torch import Tensor


def is_sharded(tensor: Tensor) -> TypeGuard[Any]:
    """Return True if a tensor is a DTensor."""
    return hasattr(tensor, "full_tensor")


def gather(tensor: Tensor) -> Tensor:
    """Return the full tensor of a DTensor, and any other tensor as it is.

    Every process must take part. Gradients flow back to the shards.
    """
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def shard_like(full: Tensor, like: Any) -> Tensor:
    """Shard a tensor that every process holds in full like a DTensor, without communication.

    Args:
        full: Tensor, the same on every process.
        like: DTensor of the same shape.
    """
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)


def local_parts(tensor: Any, other: Any) -> tuple[Tensor, Tensor]:
    """Return the local shards of a DTensor and of another one, redistributed to match it."""
    alike = other.redistribute(tensor.device_mesh, tensor.placements)
    return tensor.to_local(), alike.to_local()


def sum_over_shards(partial: Tensor, like: Any) -> Tensor:
    """Sum the results that all processes computed, each from its shard of a DTensor.

    Args:
        partial: Result of this process, of the same shape on every process.
        like: The DTensor; processes that hold the same shard are counted once.
    """
    from torch.distributed.tensor import DTensor, Partial

    placements = [p if p.is_replicate() else Partial() for p in like.placements]
    return DTensor.from_local(partial, like.device_mesh, placements, run_check=False).full_tensor()
