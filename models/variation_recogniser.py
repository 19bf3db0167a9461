"""The network that the regulariser of variation predictability trains beside a generator."""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from disentangle.models.shapes import (
    check_image_channels,
    check_images,
    check_positive,
    count_halvings,
)

SLOPE = 0.2  # of every leaky ReLU
SMALLEST = 4  # resolution at which the convolutions end


class VariationRecogniser(ModelMixin, ConfigMixin):
    """Tells from the difference of two images which axis of the latent space moved.

    Convolutions halve the image (kernel 4, stride 2) down to 4 × 4, each followed by InstanceNorm,
    except the first, and leaky ReLU; then two linear layers, with a leaky ReLU between them. It is
    small, so that a change must be plain to be told. InstanceNorm takes away how strong the
    change is, past the first layer.

    Source: Zhu, Xu and Tao, ECCV 2020, https://arxiv.org/abs/2007.12885; layers and widths of the
    code of OroJaR's simple GANs, Wei et al., ICCV 2021, https://arxiv.org/abs/2108.07668, which has
    four halvings at any size.

    Args:
        axis_count: Axes `A` to tell apart, at least 2.
        image_size: Height and width of the images in pixels, a power of two from 32.
        image_channels: 1 for grey images, 3 for colour.
        channels: Channels of every convolution.
        hidden_dim: Width of the first linear layer.

    Raises:
        ValueError: If there are fewer than 2 axes, `image_size` is not a power of two from 32, or a
            width is not positive.

    Examples:
        >>> import torch
        >>> VariationRecogniser(axis_count=6, image_size=64)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 6])
    """

    @register_to_config
    def __init__(
        self,
        *,
        axis_count: int,
        image_size: int = 64,
        image_channels: int = 3,
        channels: int = 4,
        hidden_dim: int = 16,
    ) -> None:
        super().__init__()
        if axis_count < 2:
            raise ValueError(f"there must be at least 2 axes to tell apart, got {axis_count}")
        halvings = count_halvings(image_size, SMALLEST)
        check_image_channels(image_channels)
        check_positive(channels=channels, hidden_dim=hidden_dim)
        self.from_difference = nn.Conv2d(image_channels, channels, 4, stride=2, padding=1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels, channels, 4, stride=2, padding=1, bias=False)
            for _ in range(halvings - 1)
        )
        self.norms = nn.ModuleList(
            nn.InstanceNorm2d(channels, eps=1e-6, affine=True) for _ in range(halvings - 1)
        )
        self.hidden = nn.Linear(channels * SMALLEST**2, hidden_dim)
        self.output = nn.Linear(hidden_dim, axis_count)

    def forward(self, differences: Tensor) -> Tensor:
        """The logits `(N, A)` of differences of images, `(N, C, H, W)`."""
        check_images(differences, self.config.image_channels, self.config.image_size)
        h = leaky_relu(self.from_difference(differences), SLOPE)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = leaky_relu(norm(convolution(h)), SLOPE)
        h = leaky_relu(self.hidden(h.flatten(1)), SLOPE)  # (N, C, 4, 4) -> (N, 16C)
        return self.output(h)
