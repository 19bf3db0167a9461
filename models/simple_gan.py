"""The simple GAN: a plain convolutional generator whose first layer alone takes in the latent.

Source: the generator and discriminator that OroJaR, the Hessian Penalty and NOG are compared on,
Wei et al., "Orthogonal Jacobian Regularization for Unsupervised Disentanglement in Image
Generation", ICCV 2021, https://arxiv.org/abs/2108.07668; with techniques on the first layer, Song,
Sebe and Wang, TPAMI 2022, https://arxiv.org/abs/2212.05599.
"""

import itertools

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from disentangle.models.protocol import Axis, StandardNormalPrior, coordinate_axes
from disentangle.models.shapes import (
    check_image_channels,
    check_images,
    check_latents,
    check_positive,
)
from disentangle.orthogonality import WeightConstraint, constrain_weight

SLOPE = 0.2  # of every leaky ReLU of the generator
SMALLEST = 4  # resolution at which the generator starts and the discriminator ends

# Channels from 4 × 4 up, by image size, in units of the channels at the full resolution.
GENERATOR_WIDTHS = {64: (8, 4, 2, 1, 1), 128: (16, 16, 8, 4, 2, 1)}
# Channels after each halving, in units of the first.
DISCRIMINATOR_WIDTHS = {64: (1, 2, 4, 8), 128: (1, 2, 4, 8, 16)}


class SimpleGAN(StandardNormalPrior, ModelMixin, ConfigMixin):
    """The simple GAN's generator.

    A transposed convolution takes the latent, as an image of one pixel, to 4 × 4 features, with no
    normalisation and no activation. Each further one doubles the resolution (kernel 4, stride 2, no
    bias), followed by InstanceNorm and a leaky ReLU. Last a 3 × 3 convolution and tanh. With the
    default `base_channels`, the channels are 512-256-128-64-64 at 64 pixels and
    1024-1024-512-256-128-64 at 128. Where the papers are silent (the place of the norms, the
    biases), the layers are those of OroJaR's code.

    The Pre-SVD parameter is the weight of the first layer, `(D, C, 4, 4)`, as a matrix `(D, 16 C)`.
    On a single pixel that matrix *is* the map from latent to features, so orthonormal rows make the
    map itself orthogonal: one step in the latent space changes the features by as much in every
    direction. A skew-orthogonal convolution has nothing to add here: it keeps the size of an image
    and the parity of its odd kernel, while this layer makes 4 × 4 out of 1 × 1.

    The axes are the coordinates of the latent.

    Args:
        image_size: Height and width of the images in pixels, 64 or 128.
        image_channels: 1 for grey images, 3 for colour.
        latent_dim: Dimension `D` of the latent; the papers' `nz`.
        base_channels: Channels at the full resolution; the others grow in proportion.
        pre_svd_weight: Constraint of the first layer's weight: `free`, `orthogonal` (orthonormal
            rows, or columns if `D > 16 C`), `orthonormal_kernel` (the same, since the kernel is the
            map) or `spectral` (spectral norm 1).

    Raises:
        ValueError: If `image_size` is neither 64 nor 128, a width is not positive, or
            `pre_svd_weight` is unknown.

    Examples:
        >>> model = SimpleGAN(image_size=64, latent_dim=6, base_channels=4)
        >>> model.decode(model.sample_latents(2)).shape
        torch.Size([2, 3, 64, 64])
        >>> model.pre_svd_parameters()
        ['latent_projection.weight']
    """

    @register_to_config
    def __init__(
        self,
        *,
        image_size: int = 128,
        image_channels: int = 3,
        latent_dim: int = 30,
        base_channels: int = 64,
        pre_svd_weight: WeightConstraint = "free",
    ) -> None:
        super().__init__()
        check_image_size(image_size)
        check_image_channels(image_channels)
        check_positive(latent_dim=latent_dim, base_channels=base_channels)
        widths = [base_channels * factor for factor in GENERATOR_WIDTHS[image_size]]
        self.latent_dim = latent_dim
        self.latent_projection = nn.ConvTranspose2d(latent_dim, widths[0], SMALLEST)
        # As torch draws it, but without `nn.init`, which `from_pretrained` turns off: a constraint
        # looks at the weight that it is put on, and fresh memory need not have full rank.
        bound = (widths[0] * SMALLEST**2) ** -0.5
        with torch.no_grad():
            self.latent_projection.weight.uniform_(-bound, bound)
        constrain_weight(self.latent_projection, "weight", pre_svd_weight)
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)
            for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(instance_norm(width) for width in widths[1:])
        self.to_image = nn.Conv2d(widths[-1], image_channels, 3, padding=1)

    def decode(self, z: Tensor) -> Tensor:
        """The images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`."""
        check_latents(z, self.latent_dim)
        h = self.latent_projection(z[..., None, None])  # (N, D, 1, 1) -> (N, C, 4, 4)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = functional.leaky_relu(norm(convolution(h)), SLOPE)
        return self.to_image(h).tanh()

    def forward(self, z: Tensor) -> Tensor:
        """As `decode`, for wrappers that call the module."""
        return self.decode(z)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """One axis per coordinate of the latent."""
        names = [f"dimension {j}" for j in range(self.latent_dim)]
        return coordinate_axes(names, "latent", 0, self.latent_dim)

    def pre_svd_parameters(self) -> list[str]:
        """The name of the parameter that the techniques act on: the first layer's weight.

        Of a constrained weight the name stands for the free parameter behind it, which is what
        `resolve_parameters` finds.
        """
        return ["latent_projection.weight"]


class SimpleGANDiscriminator(ModelMixin, ConfigMixin):
    """The simple GAN's discriminator.

    Convolutions halve the image (kernel 4, stride 2), each followed by InstanceNorm, except the
    first, and ReLU; then two linear layers, with ReLU between them. With the default
    `base_channels` the channels are 64-128-256-512, and 1024 after that at 128 pixels; the hidden
    layer is as wide as the last of them.

    At 128 pixels the official code has no ReLU between the linear layers, which makes them one
    linear map; here the two sizes have the same layers.

    Args:
        image_size: Height and width of the images in pixels, 64 or 128.
        image_channels: 1 for grey images, 3 for colour.
        base_channels: Channels after the first convolution; doubled at each further halving.

    Raises:
        ValueError: If `image_size` is neither 64 nor 128, or a width is not positive.

    Examples:
        >>> model = SimpleGANDiscriminator(image_size=64, base_channels=4)
        >>> model(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2])
    """

    @register_to_config
    def __init__(
        self, *, image_size: int = 128, image_channels: int = 3, base_channels: int = 64
    ) -> None:
        super().__init__()
        check_image_size(image_size)
        check_image_channels(image_channels)
        check_positive(base_channels=base_channels)
        widths = [base_channels * factor for factor in DISCRIMINATOR_WIDTHS[image_size]]
        self.from_image = nn.Conv2d(image_channels, widths[0], 4, stride=2, padding=1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False)
            for a, b in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(instance_norm(width) for width in widths[1:])
        self.hidden = nn.Linear(widths[-1] * SMALLEST**2, widths[-1])
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """The logits `(N,)` of images `(N, C, H, W)`: larger means more real."""
        check_images(images, self.config.image_channels, self.config.image_size)
        h = functional.relu(self.from_image(images))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = functional.relu(norm(convolution(h)))
        h = functional.relu(self.hidden(h.flatten(1)))  # (N, C, 4, 4) -> (N, 16C)
        return self.output(h).squeeze(1)  # (N, 1) -> (N,)


def instance_norm(channels: int) -> nn.InstanceNorm2d:
    """InstanceNorm with a scale and shift per channel."""
    return nn.InstanceNorm2d(channels, eps=1e-6, affine=True)


def check_image_size(image_size: int) -> None:
    """Raises `ValueError` unless there is a simple GAN for images of this size."""
    if image_size not in GENERATOR_WIDTHS:
        sizes = " or ".join(map(str, GENERATOR_WIDTHS))
        raise ValueError(f"image_size must be {sizes}, got {image_size}")
