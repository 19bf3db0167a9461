"""The network that FactorVAE trains beside the VAE."""

import itertools

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from disentangle.models.shapes import check_latents, check_positive

SLOPE = 0.2  # of every leaky ReLU


class CodeDiscriminator(ModelMixin, ConfigMixin):
    """Tells codes as they come from codes whose dimensions were permuted in the batch.

    Linear layers with a leaky ReLU between them.

    Source: Kim and Mnih, ICML 2018, https://arxiv.org/abs/1802.05983, appendix A: six hidden layers
    of 1000 units.

    Args:
        code_dim: Dimension `K` of the code.
        hidden_dim: Width of every hidden layer.
        depth: Hidden layers.

    Raises:
        ValueError: If one of them is not positive.

    Examples:
        >>> import torch
        >>> CodeDiscriminator(code_dim=10)(torch.zeros(4, 10)).shape
        torch.Size([4, 2])
    """

    @register_to_config
    def __init__(self, *, code_dim: int, hidden_dim: int = 1000, depth: int = 6) -> None:
        super().__init__()
        check_positive(code_dim=code_dim, hidden_dim=hidden_dim, depth=depth)
        dims = [code_dim] + [hidden_dim] * depth
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(dims))
        self.output = nn.Linear(hidden_dim, 2)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits `(N, 2)` of codes `(N, K)`: that they are as they come, that they are permuted."""
        check_latents(codes, self.config.code_dim)
        h = codes
        for linear in self.hidden:
            h = leaky_relu(linear(h), SLOPE)
        return self.output(h)
