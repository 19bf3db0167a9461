"""Networks whose parameters FSDP2 divides over the processes, and how to have them whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, cast

import torch
from diffusers import ModelMixin
from torch import nn

from disentangle.distributed.dtensor import gather


def _is_divided(network: nn.Module) -> TypeGuard[Any]:
    # `torch.distributed.fsdp` takes long to import: only who divides a network needs it.
    return hasattr(network, "set_reshard_after_backward")


def whole_model(network: nn.Module) -> nn.Module:
    """A whole copy of a network that is divided; one that is not divided itself.

    Every process must take part, and has the copy.
    """
    if not _is_divided(network):
        return network
    # FSDP2 puts a class of its own before that of the network.
    kind = cast(type[ModelMixin], type(network).__mro__[2])
    model = kind.from_config(network.config)
    with torch.no_grad():
        weights = {name: gather(weight) for name, weight in network.state_dict().items()}
    model.load_state_dict(weights)
    return model.to(next(iter(weights.values())).device).train(network.training)


def gather_parameters(network: nn.Module) -> None:
    """Makes the parameters of a network that is divided whole, until the next backward pass.

    For what runs parts of it: FSDP2 does so where `forward` is called, and only there.
    """
    if _is_divided(network):
        network.unshard()


@contextmanager
def keep_gathered(network: nn.Module) -> Iterator[None]:
    """Keeps the parameters of a network that is divided whole after a backward pass in the block.

    For a derivative that is differentiated again: FSDP2 would free them after the first.
    """
    if not _is_divided(network):
        yield
        return
    network.set_reshard_after_backward(False)
    try:
        yield
    finally:
        network.set_reshard_after_backward(True)
