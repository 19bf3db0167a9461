"""Other priors as functions of the standard normal one."""

import torch
from torch import Tensor


def normal_to_uniform(z: Tensor, low: float, high: float) -> Tensor:
    """Latents `z ~ N(0, I)` as `u ~ U(low, high)`, coordinate by coordinate: `u = F⁻¹(Φ(z))`.

    A coordinate axis of `z` is one of `u`. Other straight lines in `z` are curves in `u`, which
    have the same direction near the middle only.

    Args:
        z: Any shape.
        low: Of the uniform distribution.
        high: Of the uniform distribution.

    Examples:
        >>> normal_to_uniform(torch.tensor([-9.0, 0.0, 9.0]), 0.0, 1.0).tolist()
        [0.0, 0.5, 1.0]
    """
    return low + (high - low) * torch.special.ndtr(z)
