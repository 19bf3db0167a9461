"""Encoders of a VAE: from images to the mean and the log variance of a posterior."""

import itertools

from torch import Tensor, nn
from torch.nn import functional

from disentangle.models.layers.residual import SLOPE, ResidualBlock
from disentangle.models.layers.whitening import Whitening
from disentangle.orthogonality import WeightConstraint, constrain_weight

SMALLEST = 4  # resolution between the convolutions and the linear layers


class PosteriorLayer(nn.Module):
    """From features to the posterior's mean and log variance, by a linear layer each.

    With `whiten_codes` the means are whitened, so that a batch of them has the identity as
    covariance; the layer before, which makes that covariance, is then a Pre-SVD layer.
    """

    def __init__(
        self,
        *,
        input_dim: int,
        code_dim: int,
        whiten_codes: bool,
        pre_svd_weight: WeightConstraint,
    ) -> None:
        super().__init__()
        # Whitening takes a bias away.
        self.mean = nn.Linear(input_dim, code_dim, bias=not whiten_codes)
        self.log_variance = nn.Linear(input_dim, code_dim)
        self.whitening = Whitening(dim=code_dim) if whiten_codes else None
        if whiten_codes and pre_svd_weight != "free":
            # As torch draws it, but without `nn.init`, which `from_pretrained` turns off: a
            # constraint decomposes the weight, and fresh memory need not have full rank.
            bound = input_dim**-0.5
            self.mean.weight.data.uniform_(-bound, bound)
            constrain_weight(self.mean, "weight", pre_svd_weight)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Features `(N, D)` to the posterior's mean and log variance, each `(N, K)`."""
        mean = self.mean(h)
        return mean if self.whitening is None else self.whitening(mean), self.log_variance(h)


class ConvEncoder(nn.Module):
    """Halves images by strided convolutions down to 4 × 4, then two linear layers.

    The first two convolutions have kernels of 4 × 4, the others of 2 × 2, as in the code of
    Locatello et al.
    """

    def __init__(
        self,
        *,
        widths: list[int],
        hidden_dim: int,
        posterior: PosteriorLayer,
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) if i < 2 else nn.Conv2d(a, b, 2, stride=2)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.hidden = nn.Linear(widths[-1] * SMALLEST**2, hidden_dim)
        self.posterior = posterior

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(N, C, H, W)` to the posterior's mean and log variance, each `(N, K)`."""
        h = images
        for convolution in self.convolutions:
            # In place: on a CPU the fresh memory of a feature map costs more than its ReLU.
            h = functional.relu(convolution(h), inplace=True)
        h = functional.relu(self.hidden(h.flatten(1)))  # (N, C, 4, 4) -> (N, 16C)
        return self.posterior(h)


class ResidualEncoder(nn.Module):
    """Halves images by residual blocks with average pooling down to 4 × 4, then as `ConvEncoder`.

    The discriminator of Mescheder, Geiger and Nowozin, ICML 2018, https://arxiv.org/abs/1801.04406,
    with an average of 2 × 2 pixels.

    Args:
        widths: Channels of the images, then of the features at every resolution down to 4 × 4.
        hidden_dim: Width of the first linear layer.
        posterior: The last layer.
    """

    def __init__(self, *, widths: list[int], hidden_dim: int, posterior: PosteriorLayer) -> None:
        super().__init__()
        self.from_image = nn.Conv2d(widths[0], widths[1], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in itertools.pairwise(widths[1:]))
        self.hidden = nn.Linear(widths[-1] * SMALLEST**2, hidden_dim)
        self.posterior = posterior

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images `(N, C, H, W)` to the posterior's mean and log variance, each `(N, K)`."""
        h = self.from_image(images)
        for block in self.blocks:
            h = functional.avg_pool2d(block(h), 2)
        h = functional.leaky_relu(h, SLOPE).flatten(1)  # (N, C, 4, 4) -> (N, 16C)
        return self.posterior(functional.relu(self.hidden(h)))
