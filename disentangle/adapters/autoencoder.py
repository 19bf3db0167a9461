"""The KL autoencoder of latent diffusion as a generator with an encoder.

Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
https://arxiv.org/abs/2112.10752, in the code of diffusers (`AutoencoderKL`).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disentangle.adapters.components import principal_components
from disentangle.adapters.generator import AdaptedGenerator, adapt
from disentangle.metrics.image_range import check_range
from disentangle.models.evaluation_mode import device_of
from disentangle.models.kl_autoencoder import load_autoencoder

BATCH = 16  # images encoded at once
COMPONENTS = "principal axes of the latents"


class FlatAutoencoder(nn.Module):
    """A KL autoencoder between images and flat latents about their mean.

    Attributes:
        autoencoder: Autoencoder of diffusers.
        latent_shape: `(c, h, w)`.
        mean: Mean of the scaled latents of some images, `(D,)`; 0 before it is set.
    """

    mean: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, autoencoder: Any, example: Tensor) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        config, place = autoencoder.config, device_of(autoencoder)
        # as the pipelines of diffusers scale latents: by channel, or all of them
        shift = torch.tensor(config.get("latents_mean") or [config.get("shift_factor") or 0.0])
        scale = config.scaling_factor / torch.tensor(config.get("latents_std") or [1.0])
        self.register_buffer("shift", shift[:, None, None].to(place))
        self.register_buffer("scale", scale[:, None, None].to(place))
        self.register_buffer("mean", torch.zeros((), device=place))
        self.latent_shape = tuple(self._to_latents(example[None].to(place)).shape[1:])

    def encode(self, images: Tensor) -> Tensor:
        """The codes `(N, D)` of images `(N, C, H, W)`."""
        return self._to_latents(images).flatten(1) - self.mean

    def decode(self, z: Tensor) -> Tensor:
        """The images of codes `(N, D)`, not quite in `[-1, 1]`."""
        latents = (z + self.mean).unflatten(1, self.latent_shape) / self.scale + self.shift
        (images,) = self.autoencoder.decode(latents.to(self.autoencoder.dtype), return_dict=False)
        return images

    def _to_latents(self, images: Tensor) -> Tensor:
        """The mode of the posterior of images, scaled, `(N, c, h, w)`."""
        (posterior,) = self.autoencoder.encode(images.to(self.autoencoder.dtype), return_dict=False)
        return (posterior.mode().float() - self.shift) * self.scale


@torch.no_grad()
def adapt_autoencoder(
    autoencoder: Any, images: Tensor, *, count: int | None = 10
) -> AdaptedGenerator:
    """A generator with an encoder out of a diffusers `AutoencoderKL`.

    The flat latents are those that a diffusion model sees, `(N, c·h·w)`: the mode of the posterior
    times the scaling factor, here less the mean over the images given. The axes are the principal
    ones of the latents of these images, since single coordinates, a pixel of a channel each, mean
    little.

    The prior is `N(0, I)`, as for any VAE, but a KL autoencoder is hardly trained towards it: its
    draws look like textures. Start from codes of images.

    Args:
        autoencoder: The module, or a local folder of one (of a pipeline, its folder `vae`).
        images: That the axes and the mean are measured on, `(M, C, H, W)` in `[-1, 1]` with
            `M ≥ 2`; all images must be of this size.
        count: How many axes; None for all along which the latents vary.

    Raises:
        FileNotFoundError: As `load_autoencoder`.
        ValueError: As `load_autoencoder`; if it is another model, or the images have not the
            channels or the number that is needed, are not in `[-1, 1]`, or are all the same to it;
            or as `adapt`.

    Examples:
        >>> from diffusers import AutoencoderKL
        >>> tiny = AutoencoderKL(block_out_channels=[8], norm_num_groups=2, sample_size=8)
        >>> generator = adapt_autoencoder(tiny, torch.rand(4, 3, 8, 8) * 2 - 1, count=3)
        >>> generator.latent_dim, len(generator.axes)
        (256, 3)
        >>> generator.decode(generator.encode(torch.zeros(2, 3, 8, 8))).shape
        torch.Size([2, 3, 8, 8])
    """
    from diffusers import AutoencoderKL  # takes seconds

    if isinstance(autoencoder, str | Path):
        autoencoder = load_autoencoder(autoencoder)
    if not isinstance(autoencoder, AutoencoderKL):
        raise ValueError(
            "expected an AutoencoderKL of diffusers or its folder, got "
            f"{type(autoencoder).__name__}"
        )
    channels = autoencoder.config.in_channels
    if images.ndim != 4 or images.shape[1] != channels or len(images) < 2:
        raise ValueError(
            f"images must have the shape (M, {channels}, H, W) with M ≥ 2, got "
            f"{tuple(images.shape)}"
        )
    check_range(images)
    flat = FlatAutoencoder(autoencoder.eval(), images[0])
    place = device_of(autoencoder)
    codes = torch.cat([flat.encode(batch.to(place)) for batch in images.split(BATCH)])  # (M, D)
    flat.mean = codes.mean(dim=0)
    generator = adapt(
        flat.decode,
        latent_dim=codes.shape[1],
        encode=flat.encode,
        axes=principal_components(codes, group=COMPONENTS, count=count),
        clamp=True,
    )
    if generator.image_shape != images.shape[1:]:
        raise ValueError(
            f"images must have sides that the autoencoder can halve, got {tuple(images.shape)}, of "
            f"which it makes some of shape {generator.image_shape}"
        )
    return generator
