"""Gathering of the parameters that FSDP2 shards over the processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, cast

import torch
from diffusers import ModelMixin
from torch import nn

from disentangle.distributed.dtensor import gather


def _is_sharded(network: nn.Module) -> TypeGuard[Any]:
    # `torch.distributed.fsdp`, which could test the type, takes long to import.
    return hasattr(network, "set_reshard_after_backward")


def whole_model(network: nn.Module) -> nn.Module:
    """Return a full copy of a sharded network, and any other network as it is.

    Every process must take part, and gets a copy.
    """
    if not _is_sharded(network):
        return network
    # FSDP2 puts a class of its own before that of the network.
    kind = cast(type[ModelMixin], type(network).__mro__[2])
    model = kind.from_config(network.config)
    with torch.no_grad():
        weights = {name: gather(weight) for name, weight in network.state_dict().items()}
    model.load_state_dict(weights)
    return model.to(next(iter(weights.values())).device).train(network.training)


def gather_parameters(network: nn.Module) -> None:
    """Gather the parameters of a sharded network until the next backward pass.

    Needed to run parts of the network: FSDP2 itself gathers them in `forward` only.
    """
    if _is_sharded(network):
        network.unshard()


@contextmanager
def keep_gathered(network: nn.Module) -> Iterator[None]:
    """Keep the parameters of a sharded network gathered after a backward pass in the block.

    Needed for second derivatives: FSDP2 would free the parameters after the first pass.
    """
    if not _is_sharded(network):
        yield
        return
    network.set_reshard_after_backward(False)
    try:
        yield
    finally:
        network.set_reshard_after_backward(True)
