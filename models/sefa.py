"""SeFa: directions of the latent space, in closed form from the layer that takes in the latents.

Source: Shen and Zhou, "Closed-Form Factorization of Latent Semantics in GANs", CVPR 2021,
https://arxiv.org/abs/2007.06600; its code: https://github.com/genforce/sefa.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from disentangle.models.evaluation_mode import evaluation_mode
from disentangle.models.layers import SubspaceLayer
from disentangle.models.protocol import Axis

WEIGHT_NAMES: dict[type[nn.Module], str] = {
    nn.Linear: "weight",
    nn.ConvTranspose2d: "weight",
    SubspaceLayer: "U",
}
EQUAL = 1e-6  # relative; entries as close as this are equally large


class Factorization(NamedTuple):
    """The right singular vectors of a matrix `A (out, D)`.

    Attributes:
        directions: `(D, D)`, one unit vector per row, orthogonal to the others.
        singular_values: `(D,)`, descending; how much `A` stretches each direction.
    """

    directions: Tensor
    singular_values: Tensor


class HasDirection(Protocol):
    """An axis, as far as a rotation needs it."""

    @property
    def direction(self) -> Tensor:
        """Unit vector of shape `(D,)` in the latent space."""


def factorize(matrix: Tensor) -> Factorization:
    """The directions along which a linear map of the latents changes its output most.

    Direction `k` maximises `‖A n‖` over the unit vectors `n` orthogonal to those before it.

    Directions of equal singular values, zero for one, are an arbitrary basis of their span. The
    sign of each is a convention: the largest entry is positive.

    Args:
        matrix: `A` of shape `(out, D)`, floating point.

    Raises:
        ValueError: If `matrix` is not a matrix of finite floating-point numbers, or is empty.

    Examples:
        >>> found = factorize(torch.diag(torch.tensor([1.0, -3.0, 2.0])))
        >>> found.singular_values.tolist()
        [3.0, 2.0, 1.0]
        >>> found.directions[0].tolist()
        [0.0, 1.0, 0.0]
    """
    shape = tuple(matrix.shape)
    if matrix.ndim != 2 or 0 in shape or not matrix.is_floating_point():
        raise ValueError(f"expected a matrix (out, D), got {matrix.dtype} of shape {shape}")
    if not matrix.isfinite().all():
        raise ValueError("expected a matrix of finite numbers, got NaN or infinity")
    # A has far more rows than columns, R has not; and of R all D directions are cheap to have.
    R = torch.linalg.qr(matrix.detach().double(), mode="r").R  # (min(out, D), D)
    _, S, Vh = torch.linalg.svd(R, full_matrices=True)
    sizes = Vh.abs()
    large = sizes > (1 - EQUAL) * sizes.amax(dim=1, keepdim=True)
    first = large.byte().argmax(dim=1, keepdim=True)  # rounding must not choose between equals
    Vh = Vh * Vh.gather(1, first).sign() + 0  # no −0
    S = torch.cat([S, S.new_zeros(len(Vh) - len(S))])
    return Factorization(Vh.to(matrix), S.to(matrix))


def normalise_rows(matrix: Tensor) -> Tensor:
    """Scale each row of a matrix `(out, D)` to length 1, as SeFa's published code does.

    Every output of the layer then counts alike, however large its weights are. A row of zeros stays
    zero, where that code divides by zero.

    Examples:
        >>> normalise_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    return functional.normalize(matrix, dim=1)


def name_sefa(layer: str, *, normalise: bool) -> str:
    """Return the group of the axes that SeFa finds in a layer."""
    return f"{'normalised ' if normalise else ''}SeFa of {layer}"


def sefa_axes(
    generator: nn.Module,
    first_layer: str | None = None,
    *,
    offset: int | None = None,
    count: int | None = None,
    normalise: bool = False,
) -> tuple[Axis, ...]:
    """The axes that SeFa finds in a generator, those that change its first features most first.

    `A` of the layer is `W.view(D, −1)ᵀ` for a transposed convolution that makes a map out of one
    pixel, `W` for a linear layer, `Uᵀ diag(L)` for a SubspaceLayer, as a forward pass in evaluation
    mode sees them, constrained weights too. Later layers are not looked at.

    All `D` axes together are a rotation of the latent space: see `rotate_latents`. Under the prior
    `N(0, I)` the coordinates along them are as independent as before.

    Args:
        generator: With a `latent_dim`, and whatever else a `Generator` has.
        first_layer: Name of the layer that takes in the latents, or of its weight; by default the
            first of the generator's `pre_svd_parameters()`.
        offset: Index of the first latent that the layer takes in, for a layer that takes in a part
            of them; the directions are zero elsewhere.
        count: How many axes; by default as many as the layer takes in latents.
        normalise: Scale each row of `A` to length 1 first, as the published code does; the paper's
            formula has `A` as it is.

    Returns:
        Axes on the CPU, in single precision; the gain in a name is the singular value.

    Raises:
        ValueError: If the layer is not said or not found, is no layer whose matrix is known, or
            takes in a part of the latents and it is not said which; or `count` is out of range.

    Examples:
        >>> from disentangle.models import SubspaceVAE
        >>> model = SubspaceVAE(image_size=32, code_dim=3)
        >>> [axis.name for axis in sefa_axes(model)]
        ['rank 1 (gain 1)', 'rank 2 (gain 1)', 'rank 3 (gain 1)']
    """
    D = _latent_dim(generator)
    name = _default_layer(generator) if first_layer is None else first_layer
    matrix = _read_matrix(generator, name).float().cpu()
    if matrix.shape[1] > D:
        raise ValueError(
            f"first_layer must take in latents, of which there are {D}, got {name!r}, which takes "
            f"in {matrix.shape[1]} numbers"
        )
    part = f"{name!r} takes in {matrix.shape[1]} of {D} latents"
    if first_layer is None and matrix.shape[1] != D:
        raise ValueError(
            f"{type(generator).__name__} takes in its latents at several layers, each along axes "
            f"of its own: SeFa adds nothing ({part}); to factorize one layer all the same, give "
            "its first_layer and offset"
        )
    start = _check_offset(part, offset, D - matrix.shape[1])
    found = factorize(normalise_rows(matrix) if normalise else matrix)
    count = matrix.shape[1] if count is None else count
    if not 1 <= count <= matrix.shape[1]:
        raise ValueError(f"count must be between 1 and {matrix.shape[1]}, got {count}")
    directions = torch.zeros(count, D)
    directions[:, start : start + matrix.shape[1]] = found.directions[:count]
    gains, group = found.singular_values.tolist(), name_sefa(name, normalise=normalise)
    return tuple(
        Axis(f"rank {k + 1} (gain {gains[k]:.3g})", group, directions[k].clone())
        for k in range(count)
    )


def rotate_latents(latents: Tensor, axes: Sequence[HasDirection]) -> Tensor:
    """The coordinates of latents along axes, `z V`: codes for metrics of codes.

    Args:
        latents: `(N, D)`.
        axes: `A` axes, orthogonal to each other.

    Returns:
        `(N, A)`.

    Raises:
        ValueError: If there is no axis, or shapes do not fit.

    Examples:
        >>> model = nn.Sequential(nn.Linear(3, 8))
        >>> model.latent_dim = 3
        >>> axes, z = sefa_axes(model, "0"), torch.randn(5, 3)
        >>> torch.allclose(unrotate_latents(rotate_latents(z, axes), axes), z, atol=1e-5)
        True
    """
    V = _stack_directions(latents, axes)
    if latents.ndim != 2 or latents.shape[1] != V.shape[1]:
        raise ValueError(f"expected latents (N, {V.shape[1]}), got {tuple(latents.shape)}")
    return latents @ V.T


def unrotate_latents(coordinates: Tensor, axes: Sequence[HasDirection]) -> Tensor:
    """The latents with given coordinates along axes, and none along any other direction.

    With all `D` axes the inverse of `rotate_latents`, so that `decode(unrotate_latents(y, axes))`
    is the same generator in coordinates `y ~ N(0, I)`, for metrics that move single coordinates.

    Args:
        coordinates: `(N, A)`.
        axes: `A` axes, orthogonal to each other.

    Returns:
        `(N, D)`.

    Raises:
        ValueError: If there is no axis, or shapes do not fit.
    """
    V = _stack_directions(coordinates, axes)
    if coordinates.ndim != 2 or coordinates.shape[1] != len(V):
        raise ValueError(f"expected coordinates (N, {len(V)}), got {tuple(coordinates.shape)}")
    return coordinates @ V


def _stack_directions(like: Tensor, axes: Sequence[HasDirection]) -> Tensor:
    """The directions `(A, D)` in the type and on the device of a tensor."""
    if not axes:
        raise ValueError("expected at least one axis, got none")
    return torch.stack([axis.direction.to(like) for axis in axes])


def _latent_dim(generator: nn.Module) -> int:
    D = getattr(generator, "latent_dim", None)
    if not isinstance(D, int):
        raise ValueError(f"{type(generator).__name__} must have a latent_dim, got {D!r}")
    return D


def _default_layer(generator: nn.Module) -> str:
    name_parameters: Any = getattr(generator, "pre_svd_parameters", None)
    if name_parameters is None:
        there_is = ", ".join(_find_layers(generator)) or "none"
        raise ValueError(
            f"first_layer must name the layer of {type(generator).__name__} that takes in the "
            f"latents; there is {there_is}"
        )
    return name_parameters()[0].rpartition(".")[0]


def _find_layers(generator: nn.Module) -> dict[str, nn.Module]:
    """The layers whose matrix is known, by name."""
    known = tuple(WEIGHT_NAMES)
    return {name: part for name, part in generator.named_modules() if isinstance(part, known)}


@torch.no_grad()
def _read_matrix(generator: nn.Module, name: str) -> Tensor:
    """The matrix `A (out, D)` that a layer multiplies its latents by."""
    layers = _find_layers(generator)
    by_weight = {
        f"{module}.{weight}": layer
        for module, layer in layers.items()
        for cls, weight in WEIGHT_NAMES.items()
        if isinstance(layer, cls)
    }
    layer = layers.get(name) or by_weight.get(name)
    if layer is None:
        there_is = ", ".join(get_close_matches(name, layers) or layers) or "none"
        kinds = ", ".join(cls.__name__ for cls in WEIGHT_NAMES)
        raise ValueError(f"no layer of kind {kinds} is named {name!r}; there is {there_is}")
    with evaluation_mode(layer):
        if isinstance(layer, SubspaceLayer):
            return layer.U.T * layer.L  # φ = (L ⊙ z) U
        if isinstance(layer, nn.ConvTranspose2d):
            if layer.groups > 1 or any(layer.padding):
                raise ValueError(
                    f"{name!r} must have 1 group and no padding, so that its weight is the map of "
                    f"one pixel, got groups = {layer.groups} and padding = {layer.padding}"
                )
            return layer.weight.flatten(1).T  # (D, C, kh, kw) -> (C·kh·kw, D)
        assert isinstance(layer, nn.Linear)
        return layer.weight


def _check_offset(part: str, offset: int | None, left_out: int) -> int:
    """The index of the first latent that the layer takes in, of the ones it leaves out."""
    if offset is None and left_out:
        raise ValueError(f"{part}: offset must say which is the first of them")
    start = offset or 0
    if not 0 <= start <= left_out:
        raise ValueError(f"{part}: offset must be between 0 and {left_out}, got {start}")
    return start
