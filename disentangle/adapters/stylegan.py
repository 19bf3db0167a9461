"""Generators in two parts, as StyleGAN's: a mapping `z → w` and a synthesis `w → images`.

Source: Karras, Laine and Aila, "A Style-Based Generator Architecture for Generative Adversarial
Networks", CVPR 2019, https://arxiv.org/abs/1812.04948.
"""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from disentangle.adapters.components import principal_components
from disentangle.adapters.generator import AdaptedGenerator, adapt
from disentangle.adapters.outputs import called
from disentangle.models import Axis
from disentangle.models.evaluation_mode import device_of
from disentangle.models.sefa import factorize, name_sefa, normalise_rows
from disentangle.models.shapes import check_positive

Space = Literal["z", "w"]
CHUNK = 1000  # latents that are mapped at once
COMPONENTS = "principal axes of w"


class StyleNetwork(nn.Module):
    """The two networks, with the mean and covariance of `w`.

    Attributes:
        mapping: Maps `z` to `w`.
        synthesis: Maps `w` to images.
        whole: The module that the two are parts of, if they are functions.
        mean: Mean of `w`, shape `(W,)`.
        covariance: Covariance of `w`, shape `(W, W)`.
        width: `W`.
    """

    mean: Tensor
    covariance: Tensor

    def __init__(
        self,
        mapping: Callable[[Tensor], Tensor],
        synthesis: Callable[[Tensor], Any],
        whole: nn.Module | None,
        *,
        latent_dim: int,
        num_ws: int | None,
        truncation: float,
    ) -> None:
        super().__init__()
        self.mapping, self.synthesis, self.whole = mapping, synthesis, whole
        self.latent_dim, self.truncation = latent_dim, truncation
        self.num_ws = self._try_mapping(num_ws)

    def measure(self, draws: int, seed: int) -> Tensor:
        """Draw samples of `w`, `(draws, W)` on the CPU, and keep their mean and covariance."""
        w = self.sample(draws, torch.Generator().manual_seed(seed))
        self.register_buffer("mean", w.double().mean(dim=0).to(w).to(device_of(self)))
        self.register_buffer("covariance", w.double().T.cov().float())
        return w

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `n` samples of `w`, `(n, W)` on the CPU."""
        z = torch.randn(n, self.latent_dim, generator=generator)
        return torch.cat([self.map(part.to(device_of(self))).cpu() for part in z.split(CHUNK)])

    def sample_about_mean(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `n` samples of `w − mean`, `(n, W)` on the CPU."""
        return self.sample(n, generator) - self.mean.cpu()

    def map(self, z: Tensor) -> Tensor:
        """Map `z (N, D)` to `w (N, W)`."""
        w = self.mapping(z)
        return w[:, 0] if w.ndim == 3 else w  # one for all layers, as was checked

    def draw_z(self, z: Tensor) -> Any:
        """Return the output of the synthesis for `z (N, D)`."""
        w = self.map(z)
        if self.truncation != 1:
            w = self.mean + self.truncation * (w - self.mean)
        return self.synthesis(self._repeat(w))

    def draw_w(self, offset: Tensor) -> Any:
        """Return the output of the synthesis for `w − mean`, `(N, W)`."""
        return self.synthesis(self._repeat(self.mean + self.truncation * offset))

    def _repeat(self, w: Tensor) -> Tensor:
        """Repeat `w (N, W)` as the synthesis takes it, `(N, num_ws, W)` for several layers."""
        return w if self.num_ws is None else w[:, None].expand(-1, self.num_ws, -1)

    @torch.no_grad()
    def _try_mapping(self, num_ws: int | None) -> int | None:
        """Check the mapping, and return the number of copies of `w` that the synthesis takes."""
        z = torch.randn(2, self.latent_dim, generator=torch.Generator().manual_seed(0))
        with called(f"mapping must take latents of shape {tuple(z.shape)}"):
            w = self.mapping(z.to(device_of(self)))
        shape = tuple(w.shape) if isinstance(w, Tensor) else type(w).__name__
        if not isinstance(w, Tensor) or w.ndim not in (2, 3) or len(w) != 2:
            raise ValueError(f"mapping must give w of shape (2, W) or (2, num_ws, W), got {shape}")
        if w.ndim == 2:
            return num_ws
        if num_ws not in (None, w.shape[1]):
            raise ValueError(f"mapping gives w of shape {shape}, but num_ws is {num_ws}")
        if not torch.equal(w, w[:, :1].expand_as(w)):
            raise ValueError("mapping must give the same w for all layers, got different ones")
        return w.shape[1]


def adapt_stylegan(
    mapping: Callable[[Tensor], Tensor],
    synthesis: Callable[[Tensor], Any],
    *,
    latent_dim: int,
    space: Space = "z",
    num_ws: int | None = None,
    truncation: float = 1.0,
    draws: int = 10_000,
    seed: int = 0,
    network: nn.Module | None = None,
    output: int | str | None = None,
    image_range: tuple[float, float] = (-1.0, 1.0),
    clamp: bool = True,
) -> AdaptedGenerator:
    """Build a generator from a StyleGAN-like pair, in its space `z` or `w`.

    In `z` the prior is `N(0, I)` and the axes are coordinates. In `w` the flat latent is `w` less
    its mean, so that 0 is the average image; latents are drawn by the mapping, and the axes are the
    principal ones of the draws, with their standard deviations (GANSpace); `style_axes` has those
    of SeFa. The distribution of `w` is not normal: use `interpolation="lerp"` in
    `perceptual_path_length`.

    With a truncation `ψ` below 1, the synthesis gets `mean + ψ (w − mean)` in both spaces.

    Args:
        mapping: Gives `w` of shape `(N, W)`, or `(N, num_ws, W)` with the same `w` for every layer,
            of latents `(N, D)`. Of NVIDIA's code `lambda z: G.mapping(z, None)`.
        synthesis: Gives images of `w` in the shape that the mapping gives, or `(N, num_ws, W)`. Fix
            its noise: of NVIDIA's code `lambda w: G.synthesis(w, noise_mode="const")`.
        latent_dim: Dimension `D` of `z`.
        space: `z` or `w`.
        num_ws: Number of copies of `w` that the synthesis takes, if the mapping gives it only once.
        truncation: `ψ`, between 0 and 1.
        draws: That the mean and the axes of `w` are measured on.
        seed: Seed for these draws.
        network: The module that both are parts of, if they are functions; it goes into evaluation
            mode, and its layers are found as `network.whole.NAME`.
        output: See `adapt`.
        image_range: See `adapt`.
        clamp: See `adapt`; these networks have no last tanh.

    Raises:
        ValueError: If an argument is out of its range, the mapping does not give `w`, or as
            `adapt`.

    Examples:
        >>> mapping = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2))
        >>> synthesis = nn.Sequential(nn.Linear(16, 48), nn.Unflatten(1, (3, 4, 4)))
        >>> generator = adapt_stylegan(mapping, synthesis, latent_dim=8, space="w", truncation=0.7)
        >>> generator.latent_dim, generator.axes[0].group
        (16, 'principal axes of w')
    """
    check_positive(latent_dim=latent_dim, num_ws=1 if num_ws is None else num_ws)
    if space not in get_args(Space):
        raise ValueError(f"space must be z or w, got {space!r}")
    if draws < 2:
        raise ValueError(f"draws must be at least 2, got {draws}")
    if not 0 <= truncation <= 1:
        raise ValueError(f"truncation must be between 0 and 1, got {truncation}")
    for part in (mapping, synthesis, network):
        if isinstance(part, nn.Module):
            part.eval()
    styles = StyleNetwork(
        mapping, synthesis, network, latent_dim=latent_dim, num_ws=num_ws, truncation=truncation
    )
    images: dict[str, Any] = {"output": output, "image_range": image_range, "clamp": clamp}
    if space == "z":
        if truncation != 1:
            styles.measure(draws, seed)
        return adapt(styles.draw_z, latent_dim=latent_dim, **images)
    w = styles.measure(draws, seed)
    return adapt(
        styles.draw_w,
        latent_dim=w.shape[1],
        axes=principal_components(w, group=COMPONENTS),
        sample_latents=styles.sample_about_mean,
        **images,
    )


def style_axes(
    generator: AdaptedGenerator, layers: str, *, count: int | None = None, normalise: bool = False
) -> tuple[Axis, ...]:
    """Find axes in `w` by SeFa from the layers that take it in.

    Of several layers together: their weights are one matrix, `(Σ out, W)`. Gains that a layer
    applies to all of its weight, the same for each of them, do not matter.

    Source: Shen and Zhou, "Closed-Form Factorization of Latent Semantics in GANs", CVPR 2021,
    https://arxiv.org/abs/2007.06600.

    Args:
        generator: From `adapt_stylegan` in space `w`.
        layers: A name from `generator.named_modules()`, or a pattern such as `*.affine`; of what it
            fits, layers whose weight has the shape `(out, W)` count.
        count: Number of axes; by default all `W`.
        normalise: Scale each row of that matrix to length 1 first, as the published code does; the
            paper's formula has the weights as they are.

    Returns:
        Axes on the CPU, each with the standard deviation of `w` along it.

    Raises:
        ValueError: If the generator is another one, there is no such layer, or `count` is out of
            range.

    Examples:
        >>> mapping = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        >>> synthesis = nn.Sequential(nn.Linear(4, 48), nn.Unflatten(1, (3, 4, 4)))
        >>> generator = adapt_stylegan(mapping, synthesis, latent_dim=4, space="w")
        >>> [axis.group for axis in style_axes(generator, "*.synthesis.0", count=1)]
        ['SeFa of *.synthesis.0']
    """
    styles = generator.network
    if not isinstance(styles, StyleNetwork) or not hasattr(styles, "covariance"):
        raise ValueError("expected a generator that adapt_stylegan made in space w")
    if generator.latent_dim != len(styles.mean):
        raise ValueError("expected a generator in space w, got one in space z")
    weights = _read_weights(generator, layers)
    found = factorize(normalise_rows(weights) if normalise else weights)
    W = generator.latent_dim
    if not 1 <= (count := W if count is None else count) <= W:
        raise ValueError(f"count must be between 1 and {W}, got {count}")
    axes = []
    for k in range(count):
        n = found.directions[k]
        std = (n @ styles.covariance.cpu() @ n).clamp(min=0).sqrt()
        name = f"rank {k + 1} (gain {float(found.singular_values[k]):.3g})"
        group = name_sefa(layers, normalise=normalise)
        axes.append(Axis(name, group, n.clone(), float(std)))
    return tuple(axes)


def _read_weights(generator: AdaptedGenerator, layers: str) -> Tensor:
    """Stack the weights `(Σ out, W)` of the layers that take in `w`."""
    W = generator.latent_dim
    known = {
        name: module.weight.detach().float().cpu()
        for name, module in generator.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor) and module.weight.shape[1:] == (W,)
    }
    fitting = [weight for name, weight in known.items() if fnmatchcase(name, layers)]
    if not fitting:
        raise ValueError(
            f"no layer {layers!r} has a weight of shape (out, {W}); there is "
            f"{', '.join(known) or 'none'}"
        )
    return torch.cat(fitting)
