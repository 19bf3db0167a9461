"""A VAE whose decoder takes its code through SVD latent layers.

Source: encoder and decoder of Locatello et al., "Challenging Common Assumptions in the
Unsupervised Learning of Disentangled Representations", ICML 2019,
https://arxiv.org/abs/1811.12359, table 1, where the decoder's first linear layer is a
`SubspaceLayer`; further ones may be added at the resolutions that follow.
"""

import itertools
from typing import NamedTuple

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
from disentangle.orthogonality import WeightConstraint

SMALLEST = 4  # resolution between the convolutions and the linear layers


class VAEOutput(NamedTuple):
    """What a VAE computes of a batch of images, all that an objective needs.

    Attributes:
        logits: Reconstruction before the sigmoid, `(N, C, H, W)`.
        mean: Mean of the posterior, `(N, K)`.
        log_variance: Logarithm of the posterior's variance, `(N, K)`.
    """

    logits: Tensor
    mean: Tensor
    log_variance: Tensor


class ConvEncoder(nn.Module):
    """Halves images by strided convolutions down to 4 × 4, then two linear layers."""

    def __init__(self, *, widths: list[int], hidden_dim: int, code_dim: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.hidden = nn.Linear(widths[-1] * SMALLEST**2, hidden_dim)
        self.posterior = nn.Linear(hidden_dim, 2 * code_dim)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(N, C, H, W)` to the posterior's mean and log variance, each `(N, K)`."""
        h = images
        for convolution in self.convolutions:
            h = functional.relu(convolution(h))
        h = functional.relu(self.hidden(h.flatten(1)))  # (N, C, 4, 4) -> (N, 16C)
        mean, log_variance = self.posterior(h).chunk(2, dim=1)  # (N, 2K) -> 2 × (N, K)
        return mean, log_variance


class SubspaceDecoder(nn.Module):
    """Takes the code in through one subspace per depth.

    Depth 0 is the vector of `hidden_dim` features, depth 1 the 4 × 4 feature map, depth 2 the
    8 × 8 map, and so on: each adds a point of its own subspace.
    """

    def __init__(
        self,
        *,
        widths: list[int],
        hidden_dim: int,
        code_dim: int,
        subspace_count: int,
        pre_svd_weight: WeightConstraint,
    ) -> None:
        super().__init__()
        self.feature_shape = (widths[0], SMALLEST, SMALLEST)
        dims = [hidden_dim] + [width * (SMALLEST << i) ** 2 for i, width in enumerate(widths[:-1])]
        if not 1 <= subspace_count <= len(dims):
            raise ValueError(
                f"subspace_count must be between 1 and {len(dims)}, got {subspace_count}"
            )
        # The encoder sets the scale of each code; unequal importances only make it learn slower.
        ones = [1.0] * code_dim
        self.subspaces = nn.ModuleList(
            SubspaceLayer(
                basis_dim=code_dim, feature_dim=dim, importances=ones, weight=pre_svd_weight
            )
            for dim in dims[:subspace_count]
        )
        self.hidden = nn.Linear(hidden_dim, dims[1])
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Codes `(N, K)` to logits `(N, C, H, W)`."""
        first, *further = self.subspaces
        h = self.hidden(functional.relu(first(z)))
        h = h.unflatten(1, self.feature_shape)  # (N, 16C) -> (N, C, 4, 4)
        for i, convolution in enumerate(self.convolutions):
            if i < len(further):
                h = h + further[i](z).view_as(h)  # (N, CHW) -> (N, C, H, W)
            h = convolution(functional.relu(h))
        return h


class SubspaceVAE(StandardNormalPrior, ModelMixin, ConfigMixin):
    """A VAE whose code enters the decoder through SubspaceLayers.

    Args:
        image_size: Height and width of the images in pixels, a power of two from 32.
        image_channels: 1 for grey images, 3 for colour.
        code_dim: Dimension `K` of the code.
        base_channels: Channels of the first two convolutions; the others have twice as many.
        hidden_dim: Width of the linear layers.
        subspace_count: Depths at which the code enters the decoder: the vector first, then the
            feature maps from 4 × 4 upwards.
        pre_svd_weight: What every basis is kept to: `free`, `orthogonal` (orthonormal rows) or
            `spectral` (spectral norm 1).

    Raises:
        ValueError: If `image_size` is not a power of two from 32, a width is not positive, there
            are more subspaces than depths, or `pre_svd_weight` is unknown.

    Examples:
        >>> model = SubspaceVAE(image_size=32, image_channels=1, code_dim=5)
        >>> images = model.decode(model.sample_latents(2))
        >>> images.shape, model.encode(images).shape
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 5]))
    """

    @register_to_config
    def __init__(
        self,
        *,
        image_size: int = 64,
        image_channels: int = 1,
        code_dim: int = 10,
        base_channels: int = 32,
        hidden_dim: int = 256,
        subspace_count: int = 1,
        pre_svd_weight: WeightConstraint = "free",
    ) -> None:
        super().__init__()
        halvings = count_halvings(image_size, SMALLEST)
        check_image_channels(image_channels)
        check_positive(code_dim=code_dim, base_channels=base_channels, hidden_dim=hidden_dim)
        self.latent_dim = code_dim
        wide = [2 * base_channels] * (halvings - 2)
        widths = [image_channels, base_channels, base_channels, *wide]
        self.encoder = ConvEncoder(widths=widths, hidden_dim=hidden_dim, code_dim=code_dim)
        self.decoder = SubspaceDecoder(
            widths=widths[::-1],
            hidden_dim=hidden_dim,
            code_dim=code_dim,
            subspace_count=subspace_count,
            pre_svd_weight=pre_svd_weight,
        )

    def encode(self, images: Tensor) -> Tensor:
        """The codes `(N, K)`, means of the posterior, of images `(N, C, H, W)` in `[-1, 1]`."""
        mean, _ = self._infer(images)
        return mean

    def decode(self, z: Tensor) -> Tensor:
        """The images `(N, C, H, W)` in `[-1, 1]` of codes `(N, K)`."""
        check_latents(z, self.latent_dim)
        return 2 * self.decoder(z).sigmoid() - 1

    def forward(self, images: Tensor, noise: Tensor) -> VAEOutput:
        """The whole path of the loss, so that a distributed wrapper sees all of it.

        Args:
            images: `(N, C, H, W)` in `[-1, 1]`.
            noise: Standard normal noise `(N, K)` that the posterior is sampled with.
        """
        mean, log_variance = self._infer(images)
        z = torch.addcmul(mean, noise, (0.5 * log_variance).exp())
        return VAEOutput(self.decoder(z), mean, log_variance)

    def _infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        check_images(images, self.config.image_channels, self.config.image_size)
        return self.encoder(images)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """One axis per code."""
        names = [f"code {j}" for j in range(self.latent_dim)]
        return coordinate_axes(names, "codes", 0, self.latent_dim)

    def pre_svd_parameters(self) -> list[str]:
        """Names of the parameters that the orthogonality techniques act on: every basis `U`.

        Of a constrained `U` the name stands for the free parameter behind it, which is what
        `resolve_parameters` finds.
        """
        return [f"decoder.subspaces.{i}.U" for i in range(len(self.decoder.subspaces))]
