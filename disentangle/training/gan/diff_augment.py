"""DiffAugment: differentiable augmentation of a discriminator's input.

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020,
https://arxiv.org/abs/2006.10738, with the policy colour, translation, cutout.
"""

import torch
from torch import Tensor
from torch.nn import functional

DRAWS = 10  # uniform numbers per image that `diff_augment` uses
SHIFT = 1 / 8  # largest translation, as a fraction of the image's size
HOLE = 1 / 2  # side of the cutout, as a fraction of the image's size


def diff_augment(images: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Apply random colour changes, translation and cutout to each image.

    Each transform is applied independently, with the same probability. (The paper always applies
    all of them; the method has a probability, and leaves open whether they are independent.)

    Pure: the same draws give the same augmentation. Differentiable in the images.

    Args:
        images: `(N, C, H, W)`.
        draws: Uniform numbers in `[0, 1)`, `(N, DRAWS)`.
        probability: Probability of each of the three transforms, for each image.

    Returns:
        Images of the same shape.

    Examples:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> torch.equal(diff_augment(images, torch.rand(2, DRAWS), probability=0.0), images)
        True
    """
    amounts, switches = draws.split([DRAWS - 3, 3], dim=1)
    on = (switches < probability).T[..., None, None, None]  # (N, 3) -> (3, N, 1, 1, 1)
    images = torch.where(on[0], change_colour(images, amounts[:, :3]), images)
    images = torch.where(on[1], translate(images, amounts[:, 3:5]), images)
    return torch.where(on[2], cut_out(images, amounts[:, 5:7]), images)


def change_colour(images: Tensor, amounts: Tensor) -> Tensor:
    """Shift brightness by ±½, scale saturation by [0, 2) and contrast by [½, 1½)."""
    brightness, saturation, contrast = amounts.T[..., None, None, None]  # (N, 3) -> 3 × (N,1,1,1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (contrast + 0.5) + mean


def translate(images: Tensor, amounts: Tensor) -> Tensor:
    """Translate each image by whole pixels, up to `SHIFT` of its size, with zero padding."""
    _, _, height, width = images.shape
    reach = max(1, round(SHIFT * width)), max(1, round(SHIFT * height))
    down = _whole(amounts[:, 1], -reach[1], reach[1])
    right = _whole(amounts[:, 0], -reach[0], reach[0])
    padded = functional.pad(images, (1, 1, 1, 1))  # the border that out-of-range pixels read from
    rows = (torch.arange(height, device=images.device) + 1 - down[:, None]).clamp(0, height + 1)
    columns = (torch.arange(width, device=images.device) + 1 - right[:, None]).clamp(0, width + 1)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def cut_out(images: Tensor, amounts: Tensor) -> Tensor:
    """Set a square of half the image's size to zero, centred anywhere in the image."""
    _, _, height, width = images.shape
    centre_x = _whole(amounts[:, 0], 0, width)
    centre_y = _whole(amounts[:, 1], 0, height)
    in_rows = _near(centre_y, height)[:, None, :, None]  # (N, H) -> (N, 1, H, 1)
    in_columns = _near(centre_x, width)[:, None, None, :]  # (N, W) -> (N, 1, 1, W)
    return images * ~(in_rows & in_columns)


def _near(centre: Tensor, size: int) -> Tensor:
    side = round(HOLE * size)
    offset = torch.arange(size, device=centre.device) - centre[:, None] + side // 2
    return (offset >= 0) & (offset < side)


def _whole(uniform: Tensor, low: int, high: int) -> Tensor:
    """Map uniform numbers in `[0, 1)` to integers from `low` to `high`, both included."""
    return (uniform * (high - low + 1)).floor().long() + low
