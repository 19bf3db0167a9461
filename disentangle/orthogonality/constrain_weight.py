"""Orthonormal and spectrally normalised weights of any module: OW and SN."""

from typing import Literal, TypeVar, get_args

from torch import nn
from torch.nn.utils import parametrize

from disentangle.linalg.checks import check_floating
from disentangle.orthogonality.orthogonal_weight import Orthonormal
from disentangle.orthogonality.spectral_norm import SpectralNorm

WeightConstraint = Literal["free", "orthogonal", "orthonormal_kernel", "spectral"]
WEIGHT_CONSTRAINTS: tuple[str, ...] = get_args(WeightConstraint)

Module = TypeVar("Module", bound=nn.Module)


def constrain_weight(module: Module, name: str, constraint: WeightConstraint) -> Module:
    """Keeps a weight of a module orthonormal, or at spectral norm 1, whatever trains it.

    From here on the weight is computed from a free parameter at each look at it. The optimizer
    holds that parameter: it is the same object as before, and the state dict has it as
    `parametrizations.NAME.original`. `resolve_parameters` finds it under the name of the weight, so
    that NOG, OLR and OL act on it. A look costs a polar factor (`orthogonal`) or two products with
    a vector (`spectral`), so look once per pass. The backward pass of a polar factor costs one to
    two of them, and up to five where matrices fit in the cache.

    The matrix is that of `as_matrix`, the one which NOG sees. Of a convolution or transposed
    convolution that makes the *matrix* orthonormal, its rows as filters, and not the map from image
    to image: that is `SkewOrthogonalConv2d`, in place of the convolution. Of a linear layer the two
    are the same.

    The weight supports `torch.func.grad`, `vmap` and `jvp`; with `spectral` in evaluation mode
    only, since the power iteration of training mode updates a buffer in-place, where they raise a
    `RuntimeError`. Only `spectral` has a second derivative.

    Neither weight depends on the scale of its free parameter, so the gradient is at a right angle
    to that, and OLR has nothing to choose by: its step is the base rate or, where rounding leaves
    a small positive cosine, next to nothing. Use it with NOG or OL beside it.

    `torch.nn.utils.parametrize.cached` must not be used with a copy of the module, such as a
    running average, beside it: torch keys that cache by the original, and the copy would read it.

    Args:
        module: Holds the weight; changed in place.
        name: Name of the weight, a parameter of at least 2 dimensions.
        constraint: `orthogonal` or `orthonormal_kernel` for orthonormal rows or columns, whichever
            are fewer (OW); `spectral` for a largest singular value of 1 (SN); `free` changes
            nothing.

    Returns:
        The module.

    Raises:
        ValueError: If the constraint is unknown, if the module has no such parameter or it is
            parametrized already, or if the weight cannot be constrained: it is not dense or not
            floating point, has fewer than 2 dimensions, is not of full rank (orthonormal) or is
            zero (`spectral`).

    Examples:
        >>> import torch
        >>> linear = constrain_weight(nn.Linear(8, 4), "weight", "orthogonal")
        >>> torch.allclose(linear.weight @ linear.weight.T, torch.eye(4), atol=1e-6)
        True
        >>> [name for name, _ in linear.named_parameters()]
        ['bias', 'parametrizations.weight.original']
    """
    if constraint not in WEIGHT_CONSTRAINTS:
        choices = ", ".join(WEIGHT_CONSTRAINTS)
        raise ValueError(f"the constraint of a weight must be one of {choices}, got {constraint!r}")
    if constraint == "free":
        return module
    if parametrize.is_parametrized(module, name):
        raise ValueError(f"{name!r} of {type(module).__name__} is parametrized already")
    weight = dict(module.named_parameters(recurse=False)).get(name)
    if weight is None:
        raise ValueError(f"{type(module).__name__} has no parameter {name!r} of its own")
    check_floating(repr(name), weight, allow_meta=True)
    parametrization = SpectralNorm(weight) if constraint == "spectral" else Orthonormal()
    parametrize.register_parametrization(module, name, parametrization)
    return module
