"""Constrained weights, computed once for several passes."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils import parametrize


@contextmanager
def hold_weights(module: nn.Module) -> Iterator[None]:
    """Computes the constrained weights of a module (OW, SN) now, and keeps them in the block.

    Passes in the block share them and their gradient, which can be asked for after it. So they can
    be inside a transform of `torch.func`, which the polar factor and the power iteration behind
    the weights cannot; and a spectral norm makes one step for all of the passes.

    Run no copy of the module in the block, such as a running average: it would read these weights.

    Examples:
        >>> import torch
        >>> from disentangle.orthogonality import constrain_weight
        >>> linear = constrain_weight(nn.Linear(8, 4), "weight", "spectral")
        >>> with hold_weights(linear):
        ...     linear.weight is linear.weight
        True
        >>> linear.weight is linear.weight
        False
    """
    with parametrize.cached():
        for part in module.modules():
            if isinstance(weights := getattr(part, "parametrizations", None), nn.ModuleDict):
                for name in weights:
                    getattr(part, name)
        yield
