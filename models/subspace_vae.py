"""A VAE whose decoder takes its code through SVD latent layers.

Source: encoder and decoder of Locatello et al., "Challenging Common Assumptions in the
Unsupervised Learning of Disentangled Representations", ICML 2019,
https://arxiv.org/abs/1811.12359, in the code of disentanglement_lib (`conv_encoder`,
`deconv_decoder`), where the decoder's first linear layer is a `SubspaceLayer`; further ones may be
added at the resolutions that follow. At 64 pixels the layers are theirs, but for the importances
`L` of that one; the initial weights are those of PyTorch.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from disentangle.models.shapes import (
    check_image_channels,
    check_images,
    check_latents,
    check_positive,
    count_halvings,
)
from disentangle.models.subspace_decoder import SubspaceDecoder, conv_steps, residual_steps
from disentangle.models.vae_encoders import (
    SMALLEST,
    ConvEncoder,
    PosteriorLayer,
    ResidualEncoder,
)
from disentangle.models.vector_code import VectorCodeVAE
from disentangle.orthogonality import WeightConstraint


class VAEOutput(NamedTuple):
    """Output of a VAE for a batch of images: all that an objective needs.

    Attributes:
        logits: Reconstruction before the sigmoid, `(N, C, H, W)`.
        mean: Mean of the posterior, `(N, K)`.
        log_variance: Logarithm of the posterior's variance, `(N, K)`.
    """

    logits: Tensor
    mean: Tensor
    log_variance: Tensor


def sample_posterior(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """`z = mean + std ⊙ noise`, `(N, K)` like each of the three."""
    return torch.addcmul(mean, noise, (0.5 * log_variance).exp())


class Network(NamedTuple):
    """The parts of one architecture.

    Attributes:
        widths: From base channels and halvings to the channels after the image's.
        encoder: Its class.
        steps: From channels at 4 × 4 up to the image's to the steps of the decoder.
    """

    widths: Callable[[int, int], list[int]]
    encoder: type[ConvEncoder] | type[ResidualEncoder]
    steps: Callable[[list[int]], list[nn.Module]]


def conv_widths(base_channels: int, halvings: int) -> list[int]:
    """The channels after each halving.

    Examples:
        >>> conv_widths(32, 4)
        [32, 32, 64, 64]
    """
    return [base_channels if i < 2 else 2 * base_channels for i in range(halvings)]


def residual_widths(base_channels: int, halvings: int) -> list[int]:
    """The channels at full resolution and after each halving.

    Examples:
        >>> residual_widths(32, 5)
        [32, 64, 128, 256, 512, 512]
    """
    return [base_channels * min(2**i, 16) for i in range(halvings + 1)]


NETWORKS = {
    "conv": Network(conv_widths, ConvEncoder, conv_steps),
    "residual": Network(residual_widths, ResidualEncoder, residual_steps),
}


def build_networks(
    *,
    channels: int,
    halvings: int,
    network: str,
    base_channels: int,
    hidden_dim: int,
    code_dim: int,
    subspace_count: int,
    whiten_codes: bool,
    pre_svd_weight: WeightConstraint,
) -> tuple[nn.Module, SubspaceDecoder]:
    """The encoder and the decoder of a vector code of square feature maps.

    Args:
        channels: Channels of the maps.
        halvings: From their size down to 4 × 4, at least 1.
        network: This and all that follow: as in `SubspaceVAE`.
        base_channels: See there.
        hidden_dim: See there.
        code_dim: See there.
        subspace_count: See there.
        whiten_codes: See there.
        pre_svd_weight: See there.

    Raises:
        ValueError: As `SubspaceVAE`.
    """
    if network not in NETWORKS:
        raise ValueError(f"network must be one of {', '.join(NETWORKS)}, got {network!r}")
    check_positive(code_dim=code_dim, base_channels=base_channels, hidden_dim=hidden_dim)
    posterior = PosteriorLayer(
        input_dim=hidden_dim,
        code_dim=code_dim,
        whiten_codes=whiten_codes,
        pre_svd_weight=pre_svd_weight,
    )
    chosen = NETWORKS[network]
    widths = [channels, *chosen.widths(base_channels, halvings)]
    encoder = chosen.encoder(widths=widths, hidden_dim=hidden_dim, posterior=posterior)
    upwards = widths[::-1]
    decoder = SubspaceDecoder(
        widths=upwards[:halvings],
        steps=chosen.steps(upwards),
        hidden_dim=hidden_dim,
        code_dim=code_dim,
        subspace_count=subspace_count,
        pre_svd_weight=pre_svd_weight,
    )
    return encoder, decoder


class SubspaceVAE(VectorCodeVAE):
    """A VAE whose code enters the decoder through SubspaceLayers.

    Args:
        image_size: Height and width of the images in pixels, a power of two from 32.
        image_channels: 1 for grey images, 3 for colour.
        code_dim: Dimension `K` of the code.
        network: `conv`, that of Locatello et al.; or `residual`, for 128 pixels and more.
        base_channels: With `conv`, of the first two convolutions, the others have twice as many;
            with `residual`, at full resolution, twice as many after each halving up to 16 times.
        hidden_dim: Width of the linear layers.
        subspace_count: Depths at which the code enters the decoder: the vector first, then the
            feature maps from 4 × 4 upwards.
        whiten_codes: Whiten the posterior's means over a batch in training, and by running
            averages in evaluation, so that codes are decorrelated. The divergence is then at least
            `K / 2` nats, since every mean varies as much as the prior.
        pre_svd_weight: Constraint of every basis, and of the weight before whitening: `free`,
            `orthogonal` or `orthonormal_kernel` (orthonormal rows), or `spectral` (spectral norm
            1).

    Raises:
        ValueError: If `image_size` is not a power of two from 32, a width is not positive, there
            are more subspaces than depths, or `network` or `pre_svd_weight` is
            unknown.

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
        network: Literal["conv", "residual"] = "conv",
        base_channels: int = 32,
        hidden_dim: int = 256,
        subspace_count: int = 1,
        whiten_codes: bool = False,
        pre_svd_weight: WeightConstraint = "free",
    ) -> None:
        super().__init__()
        check_image_channels(image_channels)
        self.latent_dim = code_dim
        self.encoder, self.decoder = build_networks(
            channels=image_channels,
            halvings=count_halvings(image_size, SMALLEST),
            network=network,
            base_channels=base_channels,
            hidden_dim=hidden_dim,
            code_dim=code_dim,
            subspace_count=subspace_count,
            whiten_codes=whiten_codes,
            pre_svd_weight=pre_svd_weight,
        )

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
        mean, log_variance = self.infer(images)
        z = sample_posterior(mean, log_variance, noise)
        return VAEOutput(self.decoder(z), mean, log_variance)

    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, each `(N, K)`, of images as `encode` takes."""
        check_images(images, self.config.image_channels, self.config.image_size)
        return self.encoder(images)
