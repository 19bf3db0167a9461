"""A VAE in the latent space of a KL autoencoder, with a vector code and SVD latent layers."""

from typing import Any, Literal, NamedTuple

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from disentangle.models.kl_autoencoder import build_autoencoder, describe_autoencoder
from disentangle.models.shapes import (
    check_image_channels,
    check_images,
    check_latents,
    count_halvings,
)
from disentangle.models.subspace_vae import build_networks, sample_posterior
from disentangle.models.vae_encoders import SMALLEST
from disentangle.models.vector_code import VectorCodeVAE
from disentangle.orthogonality import WeightConstraint


class LatentVAEOutput(NamedTuple):
    """Output of a `LatentVAE` for a batch of images: all that an objective needs.

    Attributes:
        reconstruction: Reconstruction of the target, as it is, no logits.
        mean: Mean of the posterior, `(N, K)`.
        log_variance: Logarithm of the posterior's variance, `(N, K)`.
        target: What is reconstructed: the images `(N, C, H, W)` or, if the autoencoder is frozen,
            their latents `(N, c, h, w)`.
    """

    reconstruction: Tensor
    mean: Tensor
    log_variance: Tensor
    target: Tensor


class LatentVAE(VectorCodeVAE):
    """A VAE of the latents of a KL autoencoder: their vector code enters through SubspaceLayers.

    The autoencoder takes an image to the mean of its posterior, times its scaling factor: the
    latents, a feature map. The VAE codes them as a vector; its decoder makes latents, of which the
    autoencoder's decoder makes the image.

    A frozen autoencoder is not trained: the VAE learns to reconstruct its latents. One that is
    trained learns, as part of the VAE, to reconstruct images; its own posterior has no variance
    then.

    Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models",
    CVPR 2022, https://arxiv.org/abs/2112.10752, for the autoencoder, and as `SubspaceVAE`.

    Args:
        image_size: Height and width of the images in pixels, a power of two from 32.
        image_channels: 1 for grey images, 3 for colour; as many as the autoencoder takes.
        autoencoder: Local folder of an `AutoencoderKL` of diffusers (of a pipeline, its folder
            `vae`); or arguments of that class for one with fresh weights; or nothing for a small
            one that divides the size by 4, which is also where arguments that are left out come
            from. The saved configuration holds all its arguments, so that a saved model needs no
            other folder.
        train_autoencoder: Whether the autoencoder is trained or frozen.
        code_dim: Dimension `K` of the code.
        network: Between latents and code: `conv` or `residual`, see `SubspaceVAE`.
        base_channels: Base width of that network, see `SubspaceVAE`.
        hidden_dim: Width of the linear layers.
        subspace_count: Depths at which the code enters the decoder: the vector first, then the
            feature maps from 4 × 4 upwards.
        whiten_codes: As in `SubspaceVAE`.
        pre_svd_weight: As in `SubspaceVAE`.

    Raises:
        FileNotFoundError: If the folder of the autoencoder or a file in it is missing.
        ValueError: As `SubspaceVAE`; if the autoencoder cannot be built or loaded, takes images of
            other channels, has latents smaller than 8 × 8, or is to be frozen but has fresh weights
            by default.

    Examples:
        >>> import torch
        >>> model = LatentVAE(image_size=32, image_channels=1, base_channels=4)
        >>> images = model.decode(model.sample_latents(2))
        >>> images.shape, model.encode(images).shape
        (torch.Size([2, 1, 32, 32]), torch.Size([2, 10]))
        >>> model(images, torch.randn(2, 10)).target is images
        True
    """

    @register_to_config
    def __init__(
        self,
        *,
        image_size: int = 64,
        image_channels: int = 3,
        autoencoder: str | dict[str, Any] | None = None,
        train_autoencoder: bool = True,
        code_dim: int = 10,
        network: Literal["conv", "residual"] = "residual",
        base_channels: int = 32,
        hidden_dim: int = 256,
        subspace_count: int = 1,
        whiten_codes: bool = False,
        pre_svd_weight: WeightConstraint = "free",
    ) -> None:
        super().__init__()
        count_halvings(image_size, SMALLEST)  # checks it
        check_image_channels(image_channels)
        if autoencoder is None and not train_autoencoder:
            raise ValueError(
                "an autoencoder with fresh weights must be trained: expected train_autoencoder, or "
                "the folder of an autoencoder to freeze"
            )
        self.latent_dim = code_dim
        self.kl = build_autoencoder(
            autoencoder, image_size=image_size, image_channels=image_channels
        ).requires_grad_(train_autoencoder)
        # In place of a path: the weights will be beside the configuration.
        self.register_to_config(autoencoder=describe_autoencoder(self.kl))
        self.encoder, self.decoder = build_networks(
            channels=self.kl.config.latent_channels,
            halvings=self._count_latent_halvings(),
            network=network,
            base_channels=base_channels,
            hidden_dim=hidden_dim,
            code_dim=code_dim,
            subspace_count=subspace_count,
            whiten_codes=whiten_codes,
            pre_svd_weight=pre_svd_weight,
        )

    def train(self, mode: bool = True) -> "LatentVAE":
        """Training mode, or evaluation mode, of all but a frozen autoencoder."""
        super().train(mode)
        if not self.config.train_autoencoder:
            self.kl.eval()
        return self

    def decode(self, z: Tensor) -> Tensor:
        """The images `(N, C, H, W)` in `[-1, 1]` of codes `(N, K)`."""
        check_latents(z, self.latent_dim)
        return self._to_images(self.decoder(z)).clamp(-1, 1)

    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, each `(N, K)`, of images as `encode` takes."""
        return self.encoder(self._to_latents(images))

    def forward(self, images: Tensor, noise: Tensor) -> LatentVAEOutput:
        """The whole path of the loss, so that a distributed wrapper sees all of it.

        Args:
            images: `(N, C, H, W)` in `[-1, 1]`.
            noise: Standard normal noise `(N, K)` that the posterior is sampled with.
        """
        latents = self._to_latents(images)
        mean, log_variance = self.encoder(latents)
        made = self.decoder(sample_posterior(mean, log_variance, noise))
        if not self.config.train_autoencoder:
            return LatentVAEOutput(made, mean, log_variance, latents)
        return LatentVAEOutput(self._to_images(made), mean, log_variance, images)

    def _to_latents(self, images: Tensor) -> Tensor:
        check_images(images, self.config.image_channels, self.config.image_size)
        (posterior,) = self.kl.encode(images, return_dict=False)
        return self.kl.config.scaling_factor * posterior.mode()

    def _to_images(self, latents: Tensor) -> Tensor:
        """The images as the autoencoder makes them, not quite in `[-1, 1]`."""
        (images,) = self.kl.decode(latents / self.kl.config.scaling_factor, return_dict=False)
        return images

    def _count_latent_halvings(self) -> int:
        """From the size of the latents down to 4 × 4."""
        depth = len(self.kl.config.block_out_channels)
        size = self.config.image_size >> (depth - 1)
        if size < 2 * SMALLEST:
            raise ValueError(
                f"latents must be at least {2 * SMALLEST} × {2 * SMALLEST}, but the autoencoder "
                f"halves images of {self.config.image_size} pixels {depth - 1} times"
            )
        return (size // SMALLEST).bit_length() - 1
