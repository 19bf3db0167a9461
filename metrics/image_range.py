"""Range of the images that metrics take: `[-1, 1]`, from black to white."""

import math

from torch import Tensor

from disentangle.linalg.checks import check_floating

SLACK = 1e-3  # share of the range that rounding may exceed it by
LIMIT = 1 + 2 * SLACK
RULE = "images must be finite and in [-1, 1]"


def check_range(images: Tensor, *, rule: str = RULE) -> float:
    """Check that images are in `[-1, 1]` and return their lowest value.

    Args:
        images: Dense, in half, single or double precision, of any shape with at least one value.
        rule: First part of the error message.

    Raises:
        ValueError: If it is a tensor of another kind; if a value is NaN, or beyond the range by
            more than rounding.

    Examples:
        >>> import torch
        >>> check_range(torch.tensor([-0.5, 1.0]))
        -0.5
        >>> check_range(torch.tensor([0.0, 255.0]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: images must be finite and in [-1, 1], got values from 0 to 255: ...
    """
    check_floating("images", images)
    low, high = (float(value) for value in images.detach().aminmax())  # NaN is passed on
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"{rule}, got NaN or infinity")
    if low < -LIMIT or high > LIMIT:
        raise ValueError(
            f"{rule}, got values from {low:.4g} to {high:.4g}: scale them, as x / 127.5 - 1 does "
            "from [0, 255], or cut off what is beyond with x.clamp(-1, 1)"
        )
    return low


def describe_range(**lowest: float | None) -> str:
    """Return the caveat for sets of images that never go below 0, or an empty string.

    Args:
        **lowest: Lowest value of each set by its name; None if it is unknown.

    Examples:
        >>> describe_range(generated=0.01, reference=-1.0)
        'the generated images never go below 0: they look like images in [0, 1], not [-1, 1]'
    """
    bright = [name for name, value in lowest.items() if value is not None and value >= 0]
    if not bright:
        return ""
    return (
        f"the {' and '.join(bright)} images never go below 0: they look like images in [0, 1], "
        "not [-1, 1]"
    )


def join_caveats(*caveats: str) -> str:
    """Return one caveat out of several, of which any may be empty.

    Examples:
        >>> join_caveats("random features", "", "few points")
        'random features; few points'
    """
    return "; ".join(filter(None, caveats))
