"""Caching of constrained weights for several passes."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.utils import parametrize


@contextmanager
def hold_weights(module: nn.Module) -> Iterator[None]:
    """Compute the constrained weights of a module (OW, SN) once, and cache them in the block.

    Passes in the block share the weights and their gradient, which can be computed after it. So the
    passes can run in a transform of `torch.func`, which the polar factor and the power iteration
    of the weights do not support, and a spectral norm makes one power iteration for all passes.

    Do not run a copy of the module in the block, such as its moving average: it would use the
    cached weights.

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
