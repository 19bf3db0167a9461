"""A generator whose coordinates are those along other axes, such as SeFa's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disentangle.models.protocol import Axis, StandardNormalPrior
from disentangle.models.sefa import unrotate_latents


class RotatedGenerator(StandardNormalPrior, nn.Module):
    """The same images under the same prior, of latents `y` in place of `z = Vᵀ y`.

    Metrics that move single coordinates judge the axes with it. An encoder is left aside: its codes
    are along the generator's own axes.

    Args:
        generator: As the protocol `Generator` has it; its prior must be `N(0, I)`.
        axes: `D` axes, orthogonal to each other, the rows of `V`.

    Raises:
        ValueError: If the axes are not as many as the latents are long.

    Examples:
        >>> from disentangle.models import SimpleGAN, sefa_axes
        >>> generator = SimpleGAN(image_size=64, base_channels=2, latent_dim=3)
        >>> rotated = RotatedGenerator(generator, sefa_axes(generator))
        >>> rotated.axes[0].group, rotated.axes[0].direction.tolist()
        ('SeFa of latent_projection', [1.0, 0.0, 0.0])
        >>> rotated.decode(rotated.sample_latents(2)).shape
        torch.Size([2, 3, 64, 64])
    """

    def __init__(self, generator: Any, axes: Sequence[Axis]) -> None:
        super().__init__()
        self.latent_dim: int = generator.latent_dim
        if len(axes) != self.latent_dim:
            raise ValueError(f"expected {self.latent_dim} axes, got {len(axes)}")
        self.generator = generator
        self.rotation = axes

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The coordinates, under the names of the axes that they are along."""
        identity = torch.eye(self.latent_dim)
        return tuple(
            Axis(axis.name, axis.group, identity[k], axis.std)
            for k, axis in enumerate(self.rotation)
        )

    def decode(self, y: Tensor) -> Tensor:
        """The images `(N, C, H, W)` of coordinates `(N, D)` along the axes."""
        return self.generator.decode(unrotate_latents(y, self.rotation))
