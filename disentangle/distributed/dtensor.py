"""Parameters that are divided over processes as DTensors: FSDP2 (`fully_shard`), tensor parallel.

`torch.distributed.tensor` takes most of a second to import: only who has a DTensor needs it.
"""

from typing import Any, TypeGuard

from torch import Tensor


def is_sharded(tensor: Tensor) -> TypeGuard[Any]:
    """Whether a tensor is a DTensor."""
    return hasattr(tensor, "full_tensor")


def gather(tensor: Tensor) -> Tensor:
    """The whole of a tensor; one that is not divided itself.

    Every process must take part. The gradient goes back to the parts.
    """
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def shard_like(full: Tensor, like: Any) -> Tensor:
    """A tensor that every process has in full, divided as another; without communication.

    Args:
        full: The same on every process.
        like: A DTensor of its shape.
    """
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None)


def local_parts(tensor: Any, other: Any) -> tuple[Tensor, Tensor]:
    """What this process holds of a DTensor, and of another as if that were divided alike."""
    alike = other.redistribute(tensor.device_mesh, tensor.placements)
    return tensor.to_local(), alike.to_local()


def sum_over_shards(partial: Tensor, like: Any) -> Tensor:
    """The sum, the same on every process, of what each computed from its part of a DTensor.

    Args:
        partial: Of one shape on every process.
        like: The DTensor; processes that hold the same part of it are counted once.
    """
    from torch.distributed.tensor import DTensor, Partial

    placements = [p if p.is_replicate() else Partial() for p in like.placements]
    return DTensor.from_local(partial, like.device_mesh, placements, run_check=False).full_tensor()
