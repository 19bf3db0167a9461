"""Heat maps of the change of each pixel along an axis."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disentangle.traversal.layout import TEXT_GAP, beside, text

BAR = (11, 6 / 7)  # width and height of the colour bar, in units of the text size


def measure_changes(frames: Tensor, values: Sequence[float] | Tensor) -> Tensor:
    """Measure the change of each pixel from the frame of the value nearest to zero.

    The change is the mean over channels of the absolute difference, divided by the range from black
    to white.

    Args:
        frames: Shape `(A, S, V, C, H, W)` in `[-1, 1]`, as from `traverse`.
        values: The `V` positions along an axis.

    Returns:
        Shape `(A, S, V, H, W)`, from 0 to 1.

    Raises:
        ValueError: If the numbers of values and frames differ.

    Examples:
        >>> frames = torch.tensor([-1.0, 0.0, 0.5]).view(1, 1, 3, 1, 1, 1)
        >>> measure_changes(frames, [-2.0, 0.0, 2.0]).flatten().tolist()
        [0.5, 0.0, 0.25]
    """
    positions = torch.as_tensor(values)
    if positions.shape != frames.shape[2:3]:
        raise ValueError(
            f"{frames.shape[2]} values are needed, one for each frame, got {len(positions)}"
        )
    nearest = int(positions.abs().argmin())
    return (frames - frames[:, :, nearest, None]).abs().mean(dim=3) / 2


def colour(changes: Tensor, largest: float) -> np.ndarray:
    """Colour changes `(…, H, W)` from black to bright, as RGB bytes `(…, H, W, 3)`."""
    from matplotlib import colormaps  # slow to import

    share = (changes / max(largest, torch.finfo(changes.dtype).tiny)).clamp(0, 1)
    return colormaps["inferno"](share.numpy(), bytes=True)[..., :3]


def draw_key(largest: float, size: int) -> Image.Image:
    """Draw a colour bar from no change to the largest."""
    width, height = (round(side * size) for side in BAR)
    ramp = torch.linspace(0, 1, width).expand(height, width)
    bar = Image.fromarray(np.ascontiguousarray(colour(ramp, 1.0)))
    start, end = text("change: 0", size), text(f"{largest:.2g} (1 from black to white)", size)
    return beside([start, bar, end], TEXT_GAP)
