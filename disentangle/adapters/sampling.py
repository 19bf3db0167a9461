"""Random images of any generator, batch by batch, for metrics of images."""

from collections.abc import Iterator

import torch
from torch import Tensor

from disentangle.models import Generator
from disentangle.models.evaluation_mode import device_of
from disentangle.models.shapes import check_positive


@torch.no_grad()
def sample_images(
    generator: Generator, count: int, *, batch_size: int = 64, seed: int = 0
) -> Iterator[Tensor]:
    """Batches of images `(N, C, H, W)` in `[-1, 1]` of random latents, `count` images in all.

    For `disentangle.metrics.FeatureMoments.of_images` and `extract_features`. The same images for
    every batch size, but for rounding.

    Args:
        generator: In evaluation mode.
        count: Number of images.
        batch_size: Images decoded at once.
        seed: Seed for the latents.

    Raises:
        ValueError: If a number is not positive.

    Examples:
        >>> from disentangle.models import SimpleGAN
        >>> model = SimpleGAN(image_size=64, base_channels=4)
        >>> [len(batch) for batch in sample_images(model, 5, batch_size=2)]
        [2, 2, 1]
    """
    check_positive(count=count, batch_size=batch_size)
    latents = generator.sample_latents(count, torch.Generator().manual_seed(seed))
    for z in latents.split(batch_size):
        yield generator.decode(z.to(device_of(generator)))
