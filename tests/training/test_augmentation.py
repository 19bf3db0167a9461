import pytest
import torch
from torchvision.transforms import functional

from disentangle.config import TrainingConfig
from disentangle.training.augmentation import augment, cut_out, flip, shift
from disentangle.training.batches import Batch


def make_batch(n=64, size=6, images=None):
    images = torch.rand(n, 3, size, size) if images is None else images
    return Batch(images, step=7, samples=range(n), seed=0, labels=torch.arange(n))


def same(images, others):
    """Which images are equal, `(N,)`."""
    return (images == others).flatten(1).all(1)


def test_flip_mirrors_about_half_and_the_same_ones_again():
    batch, training = make_batch(), TrainingConfig(flip=True)
    flipped = augment(batch, training)
    mirrored = same(flipped.images, batch.images.flip(3))
    assert torch.equal(mirrored, ~same(flipped.images, batch.images))
    assert 16 < mirrored.sum() < 48
    assert torch.equal(augment(batch, training).images, flipped.images)
    assert torch.equal(flipped.labels, batch.labels)


def test_flip_takes_numbers_below_a_half():
    images = torch.rand(2, 1, 3, 3)
    flipped = flip(images, torch.tensor([[0.49], [0.5]]))
    assert torch.equal(flipped[0], images[0].flip(2))
    assert torch.equal(flipped[1], images[1])


def test_shift_is_a_crop_of_the_padded_image():
    images, numbers = torch.rand(50, 3, 8, 6), torch.rand(50, 2)
    shifted = shift(images, numbers, most=2)
    padded = functional.pad(images, [2, 2, 2, 2], fill=-1)
    for image, number, whole in zip(shifted, numbers, padded, strict=True):
        top, left = (4 - int(5 * x) for x in number.tolist())
        assert torch.equal(image, functional.crop(whole, top, left, 8, 6))
    assert shifted.is_contiguous(memory_format=torch.channels_last)


def test_every_shift_is_as_frequent():
    image = torch.full((900, 1, 3, 3), -1.0)
    image[:, :, 1, 1] = 1
    batch = make_batch(900, images=image)
    places = augment(batch, TrainingConfig(crop_padding=1)).images.flatten(1).argmax(1)
    counts = places.bincount(minlength=9)
    assert counts.min() > 60  # of 100 expected, with a deviation of 9
    assert counts.max() < 140


def test_cutting_out_all_changes_nothing():
    images = torch.rand(4, 3, 8, 8)
    numbers = torch.tensor([0.3, 0.5, 0.2, 0.9]).expand(4, 4)
    assert torch.allclose(cut_out(images, numbers, least=1.0), images, atol=1e-6)


def test_cutting_out_is_a_resized_crop():
    """The lower right quarter of the area, enlarged; bilinear, as torchvision's."""
    images = torch.rand(1, 3, 8, 8)
    ours = cut_out(images, torch.tensor([[0.0, 0.5, 1.0, 0.0]]), least=0.25)
    theirs = functional.resized_crop(images, 4, 0, 4, 4, [8, 8], antialias=False)
    # At the seams of the crop, the rest of the image shines through.
    assert torch.allclose(ours[..., 1:, :-1], theirs[..., 1:, :-1], atol=1e-6)


def test_what_is_cut_out_has_the_area_and_the_ratio():
    """The gradient of a ramp tells the size of the part."""
    ramp = torch.linspace(0, 1, 64).expand(500, 1, 64, 64)
    numbers = torch.rand(500, 4)
    widths = cut_out(ramp, numbers, least=0.2)[:, 0, 32].diff(dim=1).median(1).values * 63
    heights = cut_out(ramp.mT.contiguous(), numbers, least=0.2)[:, 0, :, 32].diff(dim=1)
    heights = heights.median(1).values * 63
    inside = (widths < 0.98) & (heights < 0.98)
    area, ratio = widths * heights, widths / heights
    expected = 0.2 + 0.8 * numbers[:, 0]
    assert torch.allclose(area[inside], expected[inside], atol=0.02)
    assert ratio[inside].min() > 0.73
    assert ratio[inside].max() < 1.36


def test_augmentation_belongs_to_the_sample():
    training = TrainingConfig(flip=True, crop_padding=2, crop_area=0.3)
    whole = make_batch(8)
    joined = torch.cat([augment(part, training).images for part in whole.split(2)])
    assert torch.equal(joined, augment(whole, training).images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_padding": -1}, "training.crop_padding must not be negative, got -1"),
        ({"crop_area": 0.0}, r"training.crop_area must lie in \(0, 1\], got 0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**options)
