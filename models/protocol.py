"""Interface of generators and encoders: flat latents, images, and axes to move along."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axis:
    """One direction of the latent space that can be traversed and scored.

    Attributes:
        name: What a person reads beside the axis, such as `"dimension 2"`.
        group: Axes that belong together, such as `"block 1"` of an EigenGAN.
        direction: Unit vector of shape `(D,)` in the flat latent space.
        std: Standard deviation of the prior along the direction; traversals are in units of it.
    """

    name: str
    group: str
    direction: Tensor
    std: float = 1.0


@runtime_checkable
class Generator(Protocol):
    """The protocol that traversals, metrics and the commands rely on; a user's own model may too.

    The prior of every generator is a standard normal distribution on `R^D`.
    """

    latent_dim: int

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that can be traversed."""

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """`n` draws from the prior, of shape `(n, D)`."""

    def decode(self, z: Tensor) -> Tensor:
        """The images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`."""


@runtime_checkable
class Encoder(Protocol):
    """Interface of a model with codes, in addition to `Generator`."""

    def encode(self, images: Tensor) -> Tensor:
        """The codes `(N, K)` of images `(N, C, H, W)` in `[-1, 1]`."""


class StandardNormalPrior:
    """Mixin: `sample_latents` of a model whose prior is `N(0, I)` on `R^latent_dim`."""

    latent_dim: int

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` latents of shape `(n, D)` on the CPU, from `generator` if one is given."""
        return torch.randn(n, self.latent_dim, generator=generator)


def coordinate_axes(names: list[str], group: str, offset: int, latent_dim: int) -> tuple[Axis, ...]:
    """One axis per coordinate `offset, offset + 1, …` of a `latent_dim`-dimensional latent space.

    Examples:
        >>> [axis.direction.tolist() for axis in coordinate_axes(["a", "b"], "codes", 1, 3)]
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    identity = torch.eye(latent_dim)
    return tuple(Axis(name, group, identity[offset + i].clone()) for i, name in enumerate(names))
