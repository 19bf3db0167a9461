"""The SVD latent layer: an orthonormal basis, its importances and an origin."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from disentangle.orthogonality import WeightConstraint, constrain_weight


class SubspaceLayer(nn.Module):
    """Maps coordinates of a linear subspace to a point of it: `φ = (L ⊙ z) U + μ`.

    `U` starts orthonormal, `L` at `importances`, `μ` at zero. `U` is the Pre-SVD parameter that the
    orthogonality techniques act on: with `weight="orthogonal"` it stays orthonormal; otherwise a
    loss or an orthogonal gradient, chosen outside this layer, may keep it so.

    Source: He, Kan and Shan, EigenGAN, ICCV 2021, https://arxiv.org/abs/2104.12476, eq. 2.

    Args:
        basis_dim: The dimension `q` of the subspace.
        feature_dim: The dimension of the space it lies in.
        importances: Where `L` starts, `(q,)`; by default `[3q, …, 6, 3]` as in the paper.
        weight: What `constrain_weight` keeps `U` to.

    Raises:
        ValueError: If `basis_dim` is not between 1 and `feature_dim`, there are not as many
            importances, or `weight` is unknown.

    Examples:
        >>> layer = SubspaceLayer(basis_dim=6, feature_dim=128)
        >>> layer(torch.randn(2, 6)).shape
        torch.Size([2, 128])
    """

    def __init__(
        self,
        *,
        basis_dim: int,
        feature_dim: int,
        importances: Tensor | None = None,
        weight: WeightConstraint = "free",
    ) -> None:
        super().__init__()
        if not 1 <= basis_dim <= feature_dim:
            raise ValueError(
                f"basis_dim must be between 1 and feature_dim = {feature_dim}, got {basis_dim}"
            )
        self.U = nn.Parameter(nn.init.orthogonal_(torch.empty(basis_dim, feature_dim)))
        if importances is None:
            importances = 3.0 * torch.arange(basis_dim, 0, -1)
        if importances.shape != (basis_dim,):
            raise ValueError(
                f"importances must have the shape ({basis_dim},), got {tuple(importances.shape)}"
            )
        self.L = nn.Parameter(importances.to(self.U))
        self.mu = nn.Parameter(torch.zeros(feature_dim))
        constrain_weight(self, "U", weight)

    def forward(self, z: Tensor) -> Tensor:
        """The points `(N, feature_dim)` of coordinates `z (N, basis_dim)`."""
        return torch.addmm(self.mu, self.L * z, self.U)

    def frame(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`U` and `μ` as one matrix, and the coordinates `(L ⊙ z, 1)`: their product is `φ`.

        For what is linear in `φ` and cheaper of the rows than of all points.

        Args:
            z: `(N, basis_dim)`.

        Returns:
            Shapes `(basis_dim + 1, feature_dim)` and `(N, basis_dim + 1)`.
        """
        return torch.cat([self.U, self.mu[None]]), functional.pad(self.L * z, (0, 1), value=1.0)
