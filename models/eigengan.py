"""EigenGAN: a generator that takes in a subspace of latents at every resolution.

Source: He, Kan and Shan, "EigenGAN: Layer-Wise Eigen-Learning for GANs", ICCV 2021,
https://arxiv.org/abs/2104.12476; widths and depths as in Song, Sebe and Wang, TPAMI 2022,
https://arxiv.org/abs/2212.05599.
"""

import itertools
import json
from collections.abc import MutableMapping
from typing import cast

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from disentangle.models.layers import SubspaceLayer
from disentangle.models.protocol import Axis, StandardNormalPrior, coordinate_axes
from disentangle.models.shapes import (
    check_image_channels,
    check_images,
    check_latents,
    check_positive,
    count_halvings,
)
from disentangle.models.weights_format import FORMAT, FORMAT_KEY, convert_weights, is_former
from disentangle.orthogonality import WeightConstraint

SLOPE = 0.2  # of every leaky ReLU
SMALLEST = 4  # resolution at which the generator starts and the discriminator ends


class EigenBlock(nn.Module):
    """Doubles the resolution of features while adding a point of a learned subspace to them.

    `h ← fconv1(h + ConvT1×1(φ)); h ← fconv2(h + ConvT3×3,s2(φ))` with a leaky ReLU before each
    feature convolution.

    A convolution of a point of the subspace is the same combination of the convolutions of the
    basis and the origin, `q + 1` images however large the batch is.
    """

    def __init__(
        self,
        *,
        basis_dim: int,
        size: int,
        in_channels: int,
        out_channels: int,
        pre_svd_weight: WeightConstraint,
    ) -> None:
        super().__init__()
        self.feature_shape = (in_channels, size, size)
        self.subspace = SubspaceLayer(
            basis_dim=basis_dim, feature_dim=in_channels * size * size, weight=pre_svd_weight
        )
        self.subspace_conv1 = nn.ConvTranspose2d(in_channels, in_channels, 1)
        self.subspace_conv2 = nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, 1)
        self.feature_conv1 = nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, 1)
        self.feature_conv2 = nn.ConvTranspose2d(out_channels, out_channels, 3, padding=1)

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        """Features `(N, C, H, W)` and coordinates `(N, q)` to features `(N, C', 2H, 2W)`."""
        basis, coordinates = self.subspace.frame(z)
        images = basis.unflatten(1, self.feature_shape)  # (q + 1, CHW) -> (q + 1, C, H, W)
        phi = _combine(self.subspace_conv1, images, coordinates)
        h = self.feature_conv1(functional.leaky_relu(h + phi, SLOPE))
        phi = _combine(self.subspace_conv2, images, coordinates)
        return self.feature_conv2(functional.leaky_relu(h + phi, SLOPE))


def _combine(convolution: nn.ConvTranspose2d, images: Tensor, coordinates: Tensor) -> Tensor:
    """The convolution of `Σ cᵢ imagesᵢ`, `(N, C', H', W')`, in the memory order of convolutions.

    Args:
        convolution: Its bias is counted once: the last coordinate is 1.
        images: `(q + 1, C, H, W)`.
        coordinates: `(N, q + 1)`.
    """
    made = functional.conv_transpose2d(
        images,
        convolution.weight,
        stride=convolution.stride,
        padding=cast("tuple[int, ...]", convolution.padding),
        output_padding=convolution.output_padding,
    )
    rows = made.movedim(1, -1)  # (q + 1, H', W', C')
    rows = torch.cat([rows[:-1], rows[-1:] + cast(Tensor, convolution.bias)])
    return (coordinates @ rows.flatten(1)).unflatten(1, rows.shape[1:]).movedim(-1, 1)


class EigenGAN(StandardNormalPrior, ModelMixin, ConfigMixin):
    """The EigenGAN generator.

    The flat latent is the noise first, then `q` coordinates for each of `log2(image_size) − 2`
    blocks, coarse to fine; `split` names the parts. The axes are the coordinates of the blocks.

    Args:
        image_size: Height and width of the images in pixels, a power of two from 32.
        image_channels: 1 for grey images, 3 for colour.
        basis_dim: Dimension `q` of the subspace of each block.
        noise_dim: Dimension of the noise that the features start from.
        base_channels: Channels at the full resolution; doubled at each coarser one.
        max_channels: Upper bound on the channels.
        pre_svd_weight: Constraint of every basis: `free`, `orthogonal` or `orthonormal_kernel`
            (orthonormal rows), or `spectral` (spectral norm 1).

    Raises:
        ValueError: If `image_size` is not a power of two from 32, a width is not positive, or
            `pre_svd_weight` is unknown.

    Examples:
        >>> model = EigenGAN(image_size=32, base_channels=4, noise_dim=8)
        >>> model.decode(model.sample_latents(2)).shape
        torch.Size([2, 3, 32, 32])
        >>> [axis.group for axis in model.axes[::6]]
        ['block 0', 'block 1', 'block 2']
    """

    @register_to_config
    def __init__(
        self,
        *,
        image_size: int = 256,
        image_channels: int = 3,
        basis_dim: int = 6,
        noise_dim: int = 512,
        base_channels: int = 16,
        max_channels: int = 512,
        pre_svd_weight: WeightConstraint = "free",
    ) -> None:
        super().__init__()
        doublings = count_halvings(image_size, SMALLEST)
        check_image_channels(image_channels)
        check_positive(noise_dim=noise_dim, base_channels=base_channels, max_channels=max_channels)
        widths = [min(max_channels, base_channels << i) for i in range(doublings, -1, -1)]
        self.block_count = doublings
        self.latent_dim = noise_dim + doublings * basis_dim
        self.feature_shape = (widths[0], SMALLEST, SMALLEST)
        self.noise_projection = nn.Linear(noise_dim, widths[0] * SMALLEST**2)
        self.blocks = nn.ModuleList(
            EigenBlock(
                basis_dim=basis_dim,
                size=SMALLEST << i,
                in_channels=widths[i],
                out_channels=widths[i + 1],
                pre_svd_weight=pre_svd_weight,
            )
            for i in range(doublings)
        )
        self.to_image = nn.Conv2d(widths[-1], image_channels, 7, padding=3)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Latents `(N, D)` as noise `(N, noise_dim)` and coordinates `(N, blocks, q)`."""
        check_latents(z, self.latent_dim)
        noise, coordinates = z.tensor_split([self.config.noise_dim], dim=1)
        shape = (self.block_count, self.config.basis_dim)
        return noise, coordinates.unflatten(1, shape)  # (N, blocks·q) -> (N, blocks, q)

    def decode(self, z: Tensor) -> Tensor:
        """The images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`."""
        noise, coordinates = self.split(z)
        h = self.noise_projection(noise).unflatten(1, self.feature_shape)  # -> (N, C, 4, 4)
        for block, z_i in zip(self.blocks, coordinates.unbind(1), strict=True):
            h = block(h, z_i)
        return self.to_image(functional.leaky_relu(h, SLOPE)).tanh()

    def forward(self, z: Tensor) -> Tensor:
        """As `decode`, for wrappers that call the module."""
        return self.decode(z)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """One axis per coordinate of each block, grouped by block."""
        q = self.config.basis_dim
        names = [f"dimension {j}" for j in range(q)]
        return tuple(
            axis
            for i in range(self.block_count)
            for axis in coordinate_axes(
                names, f"block {i}", self.config.noise_dim + i * q, self.latent_dim
            )
        )

    def pre_svd_parameters(self) -> list[str]:
        """Names of the parameters that the orthogonality techniques act on: every basis `U`.

        Of a constrained `U` the name stands for the free parameter behind it, which is what
        `resolve_parameters` finds.
        """
        return [f"blocks.{i}.subspace.U" for i in range(self.block_count)]

    def to_json_string(self) -> str:
        """Return what `save_pretrained` writes to `config.json`, with the format of the weights."""
        config = json.loads(super().to_json_string()) | {FORMAT_KEY: FORMAT}
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    def _fix_state_dict_keys_on_load(self, state_dict: MutableMapping[str, Tensor]) -> None:
        """Convert weights that `from_pretrained` reads in an older format."""
        if is_former(self.config):
            state_dict.update(convert_weights(state_dict))


class EigenGANDiscriminator(ModelMixin, ConfigMixin):
    """The discriminator of EigenGAN: plain convolutions, leaky ReLU, no normalisation.

    Args:
        image_size: Height and width of the images in pixels, a power of two from 32.
        image_channels: 1 for grey images, 3 for colour.
        base_channels: Channels at the full resolution; doubled at each halving.
        max_channels: Upper bound on the channels.

    Raises:
        ValueError: If `image_size` is not a power of two from 32, or a width is not positive.

    Examples:
        >>> import torch
        >>> model = EigenGANDiscriminator(image_size=32, base_channels=4)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """

    @register_to_config
    def __init__(
        self,
        *,
        image_size: int = 256,
        image_channels: int = 3,
        base_channels: int = 16,
        max_channels: int = 512,
    ) -> None:
        super().__init__()
        halvings = count_halvings(image_size, SMALLEST)
        check_image_channels(image_channels)
        check_positive(base_channels=base_channels, max_channels=max_channels)
        widths = [min(max_channels, base_channels << i) for i in range(halvings + 1)]
        layers: list[nn.Module] = [nn.Conv2d(image_channels, widths[0], 7, padding=3)]
        for narrow, wide in itertools.pairwise(widths):
            layers.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            layers.append(nn.Conv2d(narrow, wide, 3, stride=2, padding=1))
        layers.append(nn.Conv2d(widths[-1], widths[-1], 3, padding=1))
        self.convolutions = nn.ModuleList(layers)
        self.hidden = nn.Linear(widths[-1] * SMALLEST**2, widths[-1])
        self.output = nn.Linear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """The logits `(N,)` of images `(N, C, H, W)`: larger means more real."""
        check_images(images, self.config.image_channels, self.config.image_size)
        h = images
        for convolution in self.convolutions:
            h = functional.leaky_relu(convolution(h), SLOPE)
        h = functional.leaky_relu(self.hidden(h.flatten(1)), SLOPE)  # (N, C, 4, 4) -> (N, 16C)
        return self.output(h).squeeze(1)  # (N, 1) -> (N,)
