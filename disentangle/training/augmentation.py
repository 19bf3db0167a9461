"""Random flips, crops and mixup of training images, drawn for each image, on its device."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from disentangle.config import TrainingConfig
from disentangle.training.batches import Batch
from disentangle.training.rng import Purpose, stream

BLACK = -1.0  # of images in [-1, 1]
STRETCH = 4 / 3  # largest aspect ratio of a crop


def augment(batch: Batch, training: TrainingConfig) -> Batch:
    """Flip and crop the images of a batch as configured."""
    images = batch.images
    if training.crop_area < 1:
        images = cut_out(images, batch.uniform(Purpose.CUT, 4), training.crop_area)
    if training.crop_padding:
        images = shift(images, batch.uniform(Purpose.SHIFT, 2), training.crop_padding)
    if training.flip:
        images = flip(images, batch.uniform(Purpose.FLIP, 1))
    return replace(batch, images=images)


def flip(images: Tensor, numbers: Tensor) -> Tensor:
    """Mirror some images horizontally.

    Args:
        images: `(N, C, H, W)`.
        numbers: `(N, 1)` in `[0, 1)`; images with a number below ½ are mirrored.
    """
    chosen = numbers.lt(0.5)[..., None, None]  # (N, 1) -> (N, 1, 1, 1)
    return torch.where(chosen, images.flip(3), images)


def shift(images: Tensor, numbers: Tensor, most: int) -> Tensor:
    """Shift each image by whole pixels along both axes, with black padding.

    This is a random crop of the padded image.

    Args:
        images: `(N, C, H, W)` in `[-1, 1]`.
        numbers: `(N, 2)` in `[0, 1)`, mapped to shifts down and right from `−most` to `most`.
        most: Largest shift, in pixels.

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
    # indexing gives (N, H, W, C), so the result is channels-last, in which convolutions are fast
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def cut_out(images: Tensor, numbers: Tensor, least: float) -> Tensor:
    """Crop a random part of each image, and resize it to the full size.

    As in torchvision's `RandomResizedCrop`, the share of the area and the logarithm of the aspect
    ratio are uniform. But the input is the square image of the data set, at the size of training,
    and a crop that would be longer than the image is clipped to it, not drawn again. Interpolation
    is bilinear.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015,
    https://arxiv.org/abs/1409.4842, section 6.

    Args:
        images: `(N, C, H, W)`.
        numbers: `(N, 4)` in `[0, 1)`: area, aspect ratio, position down and right.
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
    """Mix each image with the previous one in the batch, whose order is random.

    One weight `λ` from `Beta(α, α)` is used for the whole step, in every process; the partner comes
    from the process's own part of the batch.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
    https://arxiv.org/abs/1710.09412, eq. 1.

    Args:
        batch: Batch with labels.
        alpha: Parameter of the Beta distribution, positive.

    Returns:
        The mixed images `(N, C, H, W)`, the classes `(N,)` of the partners, and the weight `λ` of
        the images themselves.
    """
    assert batch.labels is not None
    share = float(stream(batch.seed, Purpose.MIXUP, batch.step, 0).beta(alpha, alpha))
    images = torch.lerp(batch.images.roll(1, 0), batch.images, share)
    return images, batch.labels.roll(1, 0), share
