"""First and second derivatives of a generator along random directions of its latent space.

Shared by the Hessian Penalty and OroJaR: the directions, the finite differences or exact products
along them, and the reduction of variances to a loss.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.func import vmap

from disentangle.distributed.all_reduce import max_over_processes
from disentangle.losses.forward_mode import derive

Decode = Callable[[Tensor], Tensor | Sequence[Tensor]]
Difference = Literal["finite", "exact"]
Reduction = Literal["max", "mean"]

EPSILON = 0.1  # step of the published finite differences, in units of the latent
PRECISE = (torch.float32, torch.float64)


def rademacher_directions(numbers: Tensor, axes: Tensor) -> Tensor:
    """Random signs along some axes, from uniform random numbers.

    Signs, and not normal numbers, are what both penalties rely on: the variance of a quadratic form
    `xᵀ A x` is then `2 Σ_{i≠j} A_ij²`, without the diagonal. With normal `x` it is `2 Σ_ij A_ij²`,
    and the penalty would punish that an axis does something at all.

    Args:
        numbers: Uniform in `[0, 1)`, `(N, k·A)`: `k` draws for each of `N` samples and `A` axes.
        axes: Orthonormal directions `(A, D)` of the latent space. What lies at a right angle to
            all of them is not perturbed: an EigenGAN's noise, if these are its axes.

    Returns:
        Directions `(k, N, D)`.

    Raises:
        ValueError: If there is not the same number of draws for each axis.

    Examples:
        >>> rademacher_directions(torch.tensor([[0.1, 0.9, 0.6, 0.7]]), torch.eye(3)[:2])
        tensor([[[-1.,  1.,  0.]],
        <BLANKLINE>
                [[ 1.,  1.,  0.]]])
    """
    if axes.ndim != 2 or len(axes) == 0:
        raise ValueError(f"axes must have the shape (A, D) with A ≥ 1, got {tuple(axes.shape)}")
    if numbers.ndim != 2 or numbers.shape[1] == 0 or numbers.shape[1] % len(axes):
        raise ValueError(
            f"numbers must have the shape (N, k · {len(axes)}), got {tuple(numbers.shape)}"
        )
    signs = 1 - 2 * numbers.lt(0.5).to(axes)
    return signs.unflatten(1, (-1, len(axes))).transpose(0, 1) @ axes  # (N, k·A) -> (k, N, A)


def first_derivatives(
    decode: Decode,
    z: Tensor,
    directions: Tensor,
    *,
    epsilon: float = EPSILON,
    difference: Difference = "finite",
) -> tuple[Tensor, ...]:
    """First derivative `J x` of each output along each direction.

    - `finite`: `(G(z + εx) − G(z)) / ε`, of all points in one call with `(k + 1) N` samples.
    - `exact`: forward-mode products, in one pass over `N` samples with `k` tangents beside them.

    Both can be differentiated by the parameters. Autocast is off in here: a difference of numbers
    with 8 or 11 bits, divided by ε, is mostly rounding.

    Args:
        decode: Maps latents `(n, D)` to one tensor or several, each `(n, …)`, treating samples
            alike and one by one: a BatchNorm in training mode would mix them.
        z: Latents `(N, D)`.
        directions: `x`, `(k, N, D)`, `k ≥ 2`.
        epsilon: Step of the finite differences.
        difference: `finite` or `exact`. The latter requires operators with a forward-mode
            derivative: `hold_weights` keeps those of constrained weights out of `decode`. Of the
            norms it takes InstanceNorm alone, as `SoundNorms` says.

    Returns:
        For each output, `(k, N, …)`.

    Raises:
        ValueError: If shapes do not fit, numbers have less than single precision, `epsilon` is not
            positive, `difference` is unknown, or an exact derivative meets another norm.

    Examples:
        >>> z, directions = torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]])
        >>> (slopes,) = first_derivatives(lambda z: z[:, 0] * z[:, 1], z, directions)
        >>> slopes  # z1 ± z0, and an error of ±ε
        tensor([[3.1000],
                [0.9000]])
        >>> first_derivatives(lambda z: z[:, 0] * z[:, 1], z, directions, difference="exact")
        (tensor([[3.],
                [1.]]),)
    """
    _check(z, directions, epsilon, difference)
    if difference == "exact":
        return _products(decode, z, directions, order=1)
    outputs = _decode_all(decode, torch.cat([z[None], z + epsilon * directions]))
    return tuple((output[1:] - output[:1]) / epsilon for output in outputs)


def second_derivatives(
    decode: Decode,
    z: Tensor,
    directions: Tensor,
    *,
    epsilon: float = EPSILON,
    difference: Difference = "finite",
) -> tuple[Tensor, ...]:
    """Second derivative `xᵀ H x` of each output along each direction.

    - `finite`: `(G(z + εx) − 2 G(z) + G(z − εx)) / ε²`, of all points in one call with
      `(2k + 1) N` samples.
    - `exact`: a forward-mode product of a forward-mode product, over `N` samples.

    The two measure different things on a network with (leaky) ReLUs. The exact second derivative
    sees the curvature of tanh and InstanceNorm, but not the kinks: of an EigenGAN's features it is
    0. The finite one sees the kinks that lie within ε, each as a jump of the slope over ε. It does
    not converge as ε goes to 0: its variance grows as 1/ε.

    Arguments, errors and the rest are as for `first_derivatives`. Divided by ε², rounding weighs
    more: on a GPU that computes convolutions in TF32, PyTorch's default, it is a part of the
    result (`torch.backends.cudnn.allow_tf32 = False`).

    Examples:
        >>> z, directions = torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]])
        >>> second_derivatives(lambda z: z[:, 0] * z[:, 1], z, directions, difference="exact")
        (tensor([[ 2.],
                [-2.]]),)
    """
    _check(z, directions, epsilon, difference)
    if difference == "exact":
        return _products(decode, z, directions, order=2)
    steps = epsilon * directions
    outputs = _decode_all(decode, torch.cat([z[None], z + steps, z - steps]))
    return tuple(_second_difference(output, len(directions)) / epsilon**2 for output in outputs)


def sum_of_layers(variances: Iterable[Tensor], reduction: Reduction) -> Tensor:
    """Reduce variances to a loss: their maximum or mean in each layer, summed over the layers.

    The maximum is over the samples of all processes, each of which must then take part. The mean is
    over those of this one: what a distributed wrapper averages.

    Raises:
        ValueError: If `reduction` is unknown.
    """
    if reduction not in get_args(Reduction):
        choices = " or ".join(get_args(Reduction))
        raise ValueError(f"reduction must be {choices}, got {reduction!r}")
    if reduction == "mean":
        return torch.stack([layer.mean() for layer in variances]).sum()
    return max_over_processes(torch.stack([layer.max() for layer in variances])).sum()


def _second_difference(output: Tensor, k: int) -> Tensor:
    """Second difference from outputs `(1 + 2k, N, …)`: the centre, `k` ahead, `k` behind."""
    centre, ahead, behind = output.split([1, k, k])
    return (ahead - centre) - (centre - behind)


def _decode_all(decode: Decode, points: Tensor) -> tuple[Tensor, ...]:
    """Outputs `(P, N, …)` of points `(P, N, D)`, in one call."""
    with torch.autocast(points.device.type, enabled=False):
        outputs = _as_outputs(decode(points.flatten(0, 1)), points.shape[:2].numel())
    return tuple(output.unflatten(0, points.shape[:2]) for output in outputs)


def _products(decode: Decode, z: Tensor, directions: Tensor, order: int) -> tuple[Tensor, ...]:
    """Derivatives `(k, N, …)` of an order, by forward-mode products."""
    # Contiguous: torch writes into the tangents, which an expanded tensor does not allow.
    z, directions = z.contiguous(), directions.contiguous()

    def outputs(point: Tensor) -> tuple[Tensor, ...]:
        return _as_outputs(decode(point), len(z))

    with torch.autocast(z.device.type, enabled=False):
        return vmap(lambda x: derive(outputs, z, x, order=order))(directions)


def _as_outputs(decoded: Tensor | Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
    outputs = (decoded,) if isinstance(decoded, Tensor) else tuple(decoded)
    if not outputs:
        raise ValueError("decode must give at least one output, got none")
    for output in outputs:
        if output.ndim == 0 or len(output) != count or output.dtype not in PRECISE:
            raise ValueError(
                f"decode must give outputs ({count}, …) in single or double precision, got "
                f"{output.dtype} of shape {tuple(output.shape)}"
            )
    return outputs


def _check(z: Tensor, directions: Tensor, epsilon: float, difference: str) -> None:
    if z.ndim != 2 or z.dtype not in PRECISE:
        raise ValueError(
            "latents must have the shape (N, D) and single or double precision, got "
            f"{z.dtype} of shape {tuple(z.shape)}"
        )
    if directions.ndim != 3 or len(directions) < 2 or directions.shape[1:] != z.shape:
        raise ValueError(
            f"directions must have the shape (k, {z.shape[0]}, {z.shape[1]}) with k ≥ 2, "
            f"got {tuple(directions.shape)}"
        )
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if difference not in get_args(Difference):
        choices = " or ".join(get_args(Difference))
        raise ValueError(f"difference must be {choices}, got {difference!r}")
