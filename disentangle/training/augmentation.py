"""Random flips, crops and mixtures of training images, drawn for each image, on its device."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from disentangle.config import TrainingConfig
from disentangle.training.batches import Batch
from disentangle.training.rng import Purpose, stream

BLACK = -1.0  # of images in [-1, 1]
STRETCH = 4 / 3  # largest ratio of the sides of what is cut out


def augment(batch: Batch, training: TrainingConfig) -> Batch:
    """The batch, flipped and cropped as a run says."""
    images = batch.images
    if training.crop_area < 1:
        images = cut_out(images, batch.uniform(Purpose.CUT, 4), training.crop_area)
    if training.crop_padding:
        images = shift(images, batch.uniform(Purpose.SHIFT, 2), training.crop_padding)
    if training.flip:
        images = flip(images, batch.uniform(Purpose.FLIP, 1))
    return replace(batch, images=images)


def flip(images: Tensor, numbers: Tensor) -> Tensor:
    """The images, some mirrored horizontally.

    Args:
        images: `(N, C, H, W)`.
        numbers: `(N, 1)` in `[0, 1)`; an image is mirrored where it is below ½.
    """
    chosen = numbers.lt(0.5)[..., None, None]  # (N, 1) -> (N, 1, 1, 1)
    return torch.where(chosen, images.flip(3), images)


def shift(images: Tensor, numbers: Tensor, most: int) -> Tensor:
    """Each image moved by whole pixels along both sides, black coming in.

    This is a random crop of the padded image.

    Args:
        images: `(N, C, H, W)` in `[-1, 1]`.
        numbers: `(N, 2)` in `[0, 1)`; how far down and right, from `−most` to `most`.
        most: In pixels.

    Examples:
        >>> image = torch.eye(2)[None, None]
        >>> shift(image, torch.tensor([[0.99, 0.5]]), most=1)
        tensor([[[[-1., -1.],
                  [ 1.,  0.]]]])
    """
    count, _, height, width = images.shape
    padded = functional.pad(images, (most, most, most, most), value=BLACK)
    starts = 2 * most - (numbers * (2 * most + 1)).long()  # of the crop, (N, 2)
    rows = starts[:, :1] + torch.arange(height, device=images.device)  # (N, H)
    columns = starts[:, 1:] + torch.arange(width, device=images.device)  # (N, W)
    each = torch.arange(count, device=images.device)[:, None, None]
    # (N, H, W, C) of the indices, in the memory order that convolutions are fast in
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def cut_out(images: Tensor, numbers: Tensor, least: float) -> Tensor:
    """A random part of each image, resized to the whole.

    As torchvision's `RandomResizedCrop`: the part's share of the area is uniform, the logarithm of
    the ratio of its sides as well. But the image is the square that the data set gives, of the size
    it is trained at, and a part that would be longer than the image is cut to it, not drawn anew.
    Pixels in between are bilinear.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015,
    https://arxiv.org/abs/1409.4842, section 6.

    Args:
        images: `(N, C, H, W)`.
        numbers: `(N, 4)` in `[0, 1)`: area, ratio, place down and right.
        least: Smallest share of the area.
    """
    area, ratio, *place = numbers.unbind(1)
    share = least + (1 - least) * area
    stretch = STRETCH ** (2 * ratio - 1)
    sizes = [(share / stretch).sqrt().clamp(max=1), (share * stretch).sqrt().clamp(max=1)]
    theta = images.new_zeros(len(images), 2, 3)
    # The grid's coordinates are x, then y, from −1 to 1.
    for axis, (size, where) in enumerate(zip(reversed(sizes), reversed(place), strict=True)):
        theta[:, axis, axis] = size
        theta[:, axis, 2] = (1 - size) * (2 * where - 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def mix(batch: Batch, alpha: float) -> tuple[Tensor, Tensor, float]:
    """Each image mixed with the one before it in the batch, whose order is random already.

    One share `λ` from `Beta(α, α)` serves the whole step, in every process; the partners are of the
    process's own part of the batch.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
    https://arxiv.org/abs/1710.09412, eq. 1.

    Args:
        batch: With labels.
        alpha: Positive.

    Returns:
        The images `(N, C, H, W)`, the classes `(N,)` of what is mixed in, and the share `λ` of what
        was there.
    """
    assert batch.labels is not None
    share = float(stream(batch.seed, Purpose.MIXUP, batch.step, 0).beta(alpha, alpha))
    images = torch.lerp(batch.images.roll(1, 0), batch.images, share)
    return images, batch.labels.roll(1, 0), share
