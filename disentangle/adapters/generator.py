"""Any function from latents to images, as a generator."""

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from disentangle.adapters.outputs import OutputFormat, called, check_range, check_same
from disentangle.models import Axis
from disentangle.models.evaluation_mode import device_of
from disentangle.models.protocol import StandardNormalPrior, coordinate_axes
from disentangle.models.shapes import check_latents

TRIED = 2  # latents that are decoded to see whether it can be done
MEASURED = 4096  # draws that the spread of an unknown prior is measured on
Decode = Callable[..., Any]
Sample = Callable[[int, torch.Generator | None], Tensor]


class AdaptedGenerator(StandardNormalPrior, nn.Module):
    """A generator around a function from latents to images; made by `adapt`.

    It has what `disentangle.models.Generator` asks for, so that traversals, the explorer and the
    metrics take it.

    Attributes:
        latent_dim: Dimension `D` of the flat latents.
        image_shape: Channels, height and width of the images.
        network: The module behind the function, if there is one, with its parameters: `.to` moves
            it, and `sefa_axes` finds a layer of it as `network.NAME`.
    """

    place: Tensor

    def __init__(
        self,
        decode: Decode,
        *,
        latent_dim: int,
        latent_shape: Sequence[int] | None,
        network: nn.Module | None,
        sample_latents: Sample | None,
        uniform: tuple[float, float] | None,
        images: OutputFormat,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.latent_shape = (latent_dim,) if latent_shape is None else tuple(latent_shape)
        self.network = network
        self._axes: tuple[Axis, ...] = ()
        # Not a submodule: `network` is where the parameters are.
        self._functions = (decode, sample_latents)
        self._uniform = uniform
        self._images = images
        self.register_buffer("place", torch.empty(0, device=device), persistent=False)
        self.image_shape = self._try()

    @property
    def device(self) -> torch.device:
        """Device of latents and images."""
        return self.place.device

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes that can be traversed."""
        return self._axes

    def with_axes(self, axes: Sequence[Axis] | Tensor) -> "AdaptedGenerator":
        """Return the same generator, with the same parameters, and other axes.

        Args:
            axes: At least one; or directions `(A, D)` of length 1.

        Raises:
            ValueError: If there is none, or a direction has not the shape `(D,)` and the length 1.
        """
        changed = copy(self)
        changed._axes = as_axes(axes, self.latent_dim)
        return changed

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws `n` latents of shape `(n, D)` on the CPU, from `generator` if one is given."""
        sample = self._functions[1]
        if sample is None:
            return super().sample_latents(n, generator)
        z = sample(n, generator)
        if not isinstance(z, Tensor) or z.shape != (n, self.latent_dim):
            got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(
                f"sample_latents must give latents of shape ({n}, {self.latent_dim}), got {got}"
            )
        if not z.is_floating_point():
            raise ValueError(f"sample_latents must give floating-point latents, got {z.dtype}")
        return z.cpu()

    def decode(self, z: Tensor) -> Tensor:
        """Return the images `(N, C, H, W)` in `[-1, 1]` of latents `(N, D)`."""
        check_latents(z, self.latent_dim)
        return self._images.read(self._call(z), len(z)).to(z.dtype)  # from half precision too

    def forward(self, z: Tensor) -> Tensor:
        """Call `decode`, for wrappers that call the module."""
        return self.decode(z)

    def _call(self, z: Tensor) -> Any:
        """Call the function on latents `(N, D)` of the toolkit's prior."""
        # A copy: a function may change what it is given, as `z /= z.norm()` does.
        u = z.clone() if self._uniform is None else normal_to_uniform(z, *self._uniform)
        return self._functions[0](u.unflatten(1, self.latent_shape))  # (N, D) -> (N, …)

    @torch.no_grad()
    def _try(self) -> tuple[int, ...]:
        """Decode the first images, check them and return their shape."""
        z = self._try_prior().to(self.device)
        shape = (TRIED, *self.latent_shape)
        with called(f"decode must take latents of shape {shape} on {self.device}"):
            returned = self._call(z)
        self._images.check_values(returned, TRIED)
        images = self.decode(z)
        check_same(images[:1], self.decode(z[:1]))
        return tuple(images.shape[1:])

    def _try_prior(self) -> Tensor:
        """Draw the latents of the first images."""
        try:
            return self.sample_latents(TRIED, torch.Generator().manual_seed(0))
        except TypeError as error:  # a function of other arguments
            raise ValueError(
                f"sample_latents must take a number and a torch generator, but raised {error}"
            ) from error


class AdaptedAutoencoder(AdaptedGenerator):
    """A generator with an encoder; made by `adapt`."""

    def __init__(self, decode: Decode, *, encode: Callable[[Tensor], Tensor], **options: Any):
        super().__init__(decode, **options)
        self._encode = (encode,)  # not a submodule

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes `(N, D)` of images `(N, C, H, W)` in `[-1, 1]`."""
        codes = self._encode[0](images.clone())  # which it may change
        if not isinstance(codes, Tensor) or codes.shape != (len(images), self.latent_dim):
            got = tuple(codes.shape) if isinstance(codes, Tensor) else type(codes).__name__
            raise ValueError(
                f"encode must give codes of shape ({len(images)}, {self.latent_dim}), got {got}"
            )
        return codes


def adapt(
    decode: Decode,
    *,
    latent_dim: int,
    latent_shape: Sequence[int] | None = None,
    network: nn.Module | None = None,
    axes: Sequence[Axis] | Tensor | None = None,
    uniform: tuple[float, float] | None = None,
    sample_latents: Sample | None = None,
    encode: Callable[[Tensor], Tensor] | None = None,
    output: int | str | None = None,
    image_range: tuple[float, float] = (-1.0, 1.0),
    clamp: bool = False,
    device: torch.device | str | None = None,
) -> AdaptedGenerator:
    """Build a generator from a module or function that maps latents to images.

    A module is put into evaluation mode. Two latents are decoded at once, so that what does not fit
    is said here and not after an hour. Values of which the range makes black images only, as
    `image_range=(0, 255)` does of values from 0 to 1, are refused. Whether a decoder that makes
    values from 0 to 1 means them as `[-1, 1]` cannot be seen: say `image_range`. Metrics give such
    images a caveat.

    The toolkit's prior is `N(0, I)` on `R^D`. A network that was trained with a uniform prior gets
    `z ~ N(0, I)` through `u = F⁻¹(Φ(z))`, see `normal_to_uniform`: coordinates stay coordinates,
    and other directions bend, so that those of SeFa hold near the middle only. With
    `sample_latents` latents are as the function draws them, about 0. What takes the prior to be
    normal is then not right as it stands: `perceptual_path_length` wants `interpolation="lerp"`,
    and `invert` pulls towards 0.

    Args:
        decode: A module or function; for one that wants more than the latents, or several of them,
            a function that adds or divides them, with `network`.
        latent_dim: Dimension `D` of the latents.
        latent_shape: Shape in which `decode` takes each latent, such as `(D, 1, 1)`.
        network: The module behind `decode`, if that is not the module itself nor its method.
        axes: To move along, or their directions `(A, D)`; by default the coordinates.
        uniform: Lowest and highest value of a uniform prior.
        sample_latents: Function of `n` and a torch generator that draws `(n, D)` of another prior.
        encode: Encoder, if there is one: maps images `(N, C, H, W)` in `[-1, 1]` to codes `(N, D)`,
            the latents from which the adapted generator would make the images.
        output: Part of what `decode` returns that holds the images: the index of a tuple, the key
            of a dictionary or the name of an attribute.
        image_range: The values of black and white in what `decode` returns.
        clamp: Whether values beyond these are cut off, as those of a decoder without a final tanh.
        device: Device on which `decode` takes latents; by default that of the parameters.

    Raises:
        ValueError: If an argument is out of its range, or the first images have not the shape
            `(N, C, H, W)`, are not finite, are out of their range, are all black by it, or
            depend on more than their latents.

    Examples:
        >>> network = nn.Sequential(nn.ConvTranspose2d(8, 3, 16), nn.Sigmoid())
        >>> generator = adapt(
        ...     network, latent_dim=8, latent_shape=(8, 1, 1), image_range=(0, 1)
        ... )
        >>> generator.decode(generator.sample_latents(2)).shape
        torch.Size([2, 3, 16, 16])
        >>> len(generator.axes)
        8
    """
    _check_arguments(decode, latent_dim, latent_shape, uniform, sample_latents)
    network = _find_network(decode) if network is None else network
    if network is not None:
        network.eval()
    options: dict[str, Any] = {
        "latent_dim": latent_dim,
        "latent_shape": latent_shape,
        "network": network,
        "sample_latents": sample_latents,
        "uniform": uniform,
        "images": OutputFormat(output, image_range, clamp),
        "device": device_of(network) if device is None else torch.device(device),
    }
    if encode is None:
        generator = AdaptedGenerator(decode, **options)
    else:
        generator = AdaptedAutoencoder(decode, encode=encode, **options)
    return generator.with_axes(_default_axes(generator, sample_latents) if axes is None else axes)


def as_axes(axes: Sequence[Axis] | Tensor, latent_dim: int) -> tuple[Axis, ...]:
    """Check axes, or make axes of the rows of a tensor of directions.

    Examples:
        >>> [axis.name for axis in as_axes(torch.eye(2), 2)]
        ['direction 0', 'direction 1']
    """
    if isinstance(axes, Tensor):
        axes = [Axis(f"direction {k}", "directions", d) for k, d in enumerate(axes)]
    if not axes:
        raise ValueError("expected at least one axis, got none")
    for axis in axes:
        if not isinstance(axis, Axis):
            raise ValueError(
                f"axes must be Axis objects or a tensor of directions (A, D), got a "
                f"{type(axis).__name__} among them"
            )
        if not 0 <= axis.std < math.inf:
            raise ValueError(f"the std of {axis.name!r} must be finite, got {axis.std}")
        shape, length = tuple(axis.direction.shape), float(axis.direction.norm())
        if shape != (latent_dim,) or not abs(length - 1) < 1e-3:
            raise ValueError(
                f"directions must have the shape ({latent_dim},) and length 1, got that of "
                f"{axis.name!r} of shape {shape} and length {length:.4g}"
            )
    return tuple(axes)


def normal_to_uniform(z: Tensor, low: float, high: float) -> Tensor:
    """Map latents `z ~ N(0, I)` to `u ~ U(low, high)`, coordinate by coordinate: `u = F⁻¹(Φ(z))`.

    A coordinate axis of `z` is one of `u`. Other straight lines in `z` are curves in `u`, which
    have the same direction near the middle only.

    Args:
        z: Any shape.
        low: Lowest value.
        high: Highest value.

    Examples:
        >>> normal_to_uniform(torch.tensor([-9.0, 0.0, 9.0]), 0.0, 1.0).tolist()
        [0.0, 0.5, 1.0]
    """
    return low + (high - low) * torch.special.ndtr(z)


def _find_network(decode: Decode) -> nn.Module | None:
    """Return the module that a function is, or is a method of."""
    owner = decode if isinstance(decode, nn.Module) else getattr(decode, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


def _default_axes(generator: AdaptedGenerator, sample: Sample | None) -> tuple[Axis, ...]:
    """Return the coordinate axes, in units of the prior."""
    D = generator.latent_dim
    axes = coordinate_axes([f"dimension {j}" for j in range(D)], "latent", 0, D)
    if sample is None:
        return axes
    draws = generator.sample_latents(MEASURED, torch.Generator().manual_seed(0))
    stds = draws.double().std(dim=0)
    return tuple(
        Axis(axis.name, axis.group, axis.direction, float(std))
        for axis, std in zip(axes, stds, strict=True)
    )


def _check_arguments(
    decode: Decode,
    latent_dim: int,
    latent_shape: Sequence[int] | None,
    uniform: tuple[float, float] | None,
    sample_latents: Sample | None,
) -> None:
    if not isinstance(latent_dim, int) or latent_dim < 1:
        raise ValueError(f"latent_dim must be a whole number from 1, got {latent_dim!r}")
    if not callable(decode):
        raise ValueError(f"decode must be a module or a function, got {type(decode).__name__}")
    sides = (latent_dim,) if latent_shape is None else tuple(latent_shape)
    if math.prod(sides) != latent_dim or any(side < 1 for side in sides):
        raise ValueError(f"latent_shape must hold latent_dim = {latent_dim} numbers, got {sides}")
    if uniform is not None:
        check_range("uniform", uniform)
    if uniform is not None and sample_latents is not None:
        raise ValueError("expected uniform or sample_latents, got two priors")
