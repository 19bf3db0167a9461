"""Base of VAEs whose code is a vector that enters the decoder through SVD latent layers."""

from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from disentangle.models.protocol import Axis, StandardNormalPrior, coordinate_axes


class VectorCodeVAE(StandardNormalPrior, ModelMixin, ConfigMixin):
    """Base of a VAE: it has what `build_networks` makes, and can `infer`.

    Attributes:
        encoder: Ends in a `PosteriorLayer`.
        decoder: A `SubspaceDecoder`.
        latent_dim: Dimension `K` of the code.
    """

    latent_dim: int

    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the posterior, each `(N, K)`, of images as `encode` takes."""
        raise NotImplementedError

    def encode(self, images: Tensor) -> Tensor:
        """The codes `(N, K)`, means of the posterior, of images `(N, C, H, W)` in `[-1, 1]`."""
        mean, _ = self.infer(images)
        return mean

    @property
    def axes(self) -> tuple[Axis, ...]:
        """One axis per code."""
        names = [f"code {j}" for j in range(self.latent_dim)]
        return coordinate_axes(names, "codes", 0, self.latent_dim)

    def pre_svd_parameters(self) -> list[str]:
        """Names of the parameters that the orthogonality techniques act on: every basis `U`.

        With `whiten_codes`, the weight before whitening too. Of a constrained one the name stands
        for the free parameter behind it, which is what `resolve_parameters` finds.
        """
        bases = [f"decoder.subspaces.{i}.U" for i in range(len(self.decoder.subspaces))]
        whitened = self.encoder.posterior.whitening is not None
        return [*bases, "encoder.posterior.mean.weight"] if whitened else bases
