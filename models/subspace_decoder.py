"""The decoder of a VAE that takes its code through SVD latent layers."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from disentangle.models.layers import SubspaceLayer
from disentangle.models.layers.image_convolution import ImageConvTranspose2d
from disentangle.models.layers.residual import SLOPE, ResidualBlock
from disentangle.models.vae_encoders import SMALLEST
from disentangle.orthogonality import WeightConstraint


def conv_steps(widths: list[int]) -> list[nn.Module]:
    """ReLU and a transposed convolution of 4 × 4 from each of `widths` to the next."""
    *features, channels = widths
    convolutions = [
        *(
            nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)
            for a, b in itertools.pairwise(features)
        ),
        ImageConvTranspose2d(features[-1], channels),
    ]
    # In place: on a CPU the fresh memory of a feature map costs more than its ReLU.
    return [nn.Sequential(nn.ReLU(inplace=True), convolution) for convolution in convolutions]


def residual_steps(widths: list[int]) -> list[nn.Module]:
    """A residual block and repeated pixels from each of `widths` to the next; the last is images'.

    The generator of Mescheder, Geiger and Nowozin, ICML 2018, https://arxiv.org/abs/1801.04406.
    """
    *features, channels = widths
    steps: list[list[nn.Module]] = [
        [ResidualBlock(a, b), nn.Upsample(scale_factor=2)] for a, b in itertools.pairwise(features)
    ]
    steps[-1] += [nn.LeakyReLU(SLOPE), nn.Conv2d(features[-1], channels, 3, padding=1)]
    return [nn.Sequential(*modules) for modules in steps]


class SubspaceDecoder(nn.Module):
    """Takes the code in through one subspace per depth.

    Depth 0 is the vector of `hidden_dim` features, depth 1 the 4 × 4 feature map, depth 2 the
    8 × 8 map, and so on: each adds a point of its own subspace.

    Args:
        widths: Channels of the features at 4 × 4, 8 × 8 and so on, for each step.
        steps: Each doubles the resolution; the last one makes the logits.
        hidden_dim: Width of the first linear layers.
        code_dim: Dimension `K` of the code.
        subspace_count: Depths, from the first, at which the code enters.
        pre_svd_weight: What every basis is kept to.

    Raises:
        ValueError: If there are more subspaces than depths.
    """

    def __init__(
        self,
        *,
        widths: list[int],
        steps: list[nn.Module],
        hidden_dim: int,
        code_dim: int,
        subspace_count: int,
        pre_svd_weight: WeightConstraint,
    ) -> None:
        super().__init__()
        self.feature_shape = (widths[0], SMALLEST, SMALLEST)
        dims = [hidden_dim] + [width * (SMALLEST << i) ** 2 for i, width in enumerate(widths)]
        if not 1 <= subspace_count <= len(dims):
            raise ValueError(
                f"subspace_count must be between 1 and {len(dims)}, got {subspace_count}"
            )
        # The encoder sets the scale of each code; unequal importances only make it learn slower.
        ones = torch.ones(code_dim)
        self.subspaces = nn.ModuleList(
            SubspaceLayer(
                basis_dim=code_dim, feature_dim=dim, importances=ones, weight=pre_svd_weight
            )
            for dim in dims[:subspace_count]
        )
        self.hidden = nn.Linear(hidden_dim, dims[1])
        self.steps = nn.ModuleList(steps)

    def forward(self, z: Tensor) -> Tensor:
        """Codes `(N, K)` to logits `(N, C, H, W)`."""
        first, *further = self.subspaces
        h = self.hidden(functional.relu(first(z)))
        h = h.unflatten(1, self.feature_shape)  # (N, 16C) -> (N, C, 4, 4)
        for i, step in enumerate(self.steps):
            if i < len(further):
                h = h + further[i](z).view_as(h)  # (N, CHW) -> (N, C, H, W)
            h = step(h)
        return h
