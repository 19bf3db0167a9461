"""Hessian Penalty: discourage interactions between latents in their effect on the image.

Peebles, Peebles, Zhu, Efros and Torralba, "The Hessian Penalty: A Weak Prior for Unsupervised
Disentanglement", ECCV 2020, https://arxiv.org/abs/2008.10599.
"""

from torch import Tensor

from disentangle.losses.directional_derivatives import (
    EPSILON,
    Decode,
    Difference,
    Reduction,
    second_derivatives,
    sum_of_layers,
)


def hessian_penalty(
    decode: Decode,
    z: Tensor,
    directions: Tensor,
    *,
    epsilon: float = EPSILON,
    difference: Difference = "finite",
    reduction: Reduction = "max",
) -> Tensor:
    """Loss on the off-diagonal of the Hessian of every output with respect to the latent.

    `hessian_variances`, reduced over samples and elements of each output, summed over the outputs.
    As published: two Rademacher directions (`rademacher_directions`), ε = 0.1, the maximum.

    Weight in the simple GANs of OroJaR and NOG: 1e-5, on the outputs of the convolutions before
    their norms, all but the last two (`record_layers`).

    Cost per step: `2k + 1` times decoding and its backward pass, 5 with two directions. `exact`
    took 1.9 to 2.4 times as long in a trial with a simple GAN of 64 pixels on a CPU.

    Blind to first derivatives: the outputs may be linear in the latents, with all latents doing the
    same, at no penalty. So layers before the first nonlinearity cost nothing.

    With (leaky) ReLUs, which have their second derivative at kinks alone, the finite differences
    measure how much slopes jump within ε of the latent. Their variance grows as 1/ε, so a change
    of ε requires another weight. `exact` is blind to kinks: of an untrained simple GAN it was 6 to
    14 times less than `finite` at ε = 0.1, of an EigenGAN's features it is 0. That is why `finite`
    is the default, and exactness is no gain here as it is with OroJaR.

    Args:
        decode: Maps latents `(n, D)` to one tensor or several, each `(n, …)`, treating samples
            one by one.
        z: Latents `(N, D)`.
        directions: Random signs, `(k, N, D)`, `k ≥ 2`; 0 for a latent that is left alone.
        epsilon: Step of the finite differences.
        difference: `finite` as published, or `exact` forward-mode products.
        reduction: `max` as published, or `mean`.

    Raises:
        ValueError: If shapes do not fit, numbers have less than single precision, or an option is
            out of its range.

    Examples:
        >>> import torch
        >>> z, signs = torch.zeros(1, 2), torch.tensor([[[1.0, 1.0]], [[1.0, -1.0]]])
        >>> hessian_penalty(lambda z: z[:, 0] * z[:, 1], z, signs, difference="exact")
        tensor(8.)
    """
    variances = hessian_variances(decode, z, directions, epsilon=epsilon, difference=difference)
    return sum_of_layers(variances, reduction)


def hessian_variances(
    decode: Decode,
    z: Tensor,
    directions: Tensor,
    *,
    epsilon: float = EPSILON,
    difference: Difference = "finite",
) -> tuple[Tensor, ...]:
    """`Var_x(xᵀ H x)` of each element of each output, estimated without bias (eqs. 4 and 5).

    The mean of the estimate over all Rademacher directions is `2 Σ_{i≠j} H_ij²`, for any `k` (but
    for what finite differences leave out: derivatives of the fourth order and up). So for outputs
    `[z0 z1, z0² z1]` it is `[4, 16 z0²]`. A single estimate with `k = 2` and two latents is either
    0 or twice that.

    Arguments and errors are as for `hessian_penalty`.

    Returns:
        For each output, its own shape `(N, …)`.

    Examples:
        >>> import torch
        >>> z = torch.tensor([[3.0, 1.0]]).expand(16, 2)
        >>> signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)  # all pairs of all x
        >>> directions = signs.view(16, 2, 2).transpose(0, 1)  # (N, k·D) -> (k, N, D)
        >>> decode = lambda z: [z[:, 0] * z[:, 1], z[:, 0] ** 2 * z[:, 1]]
        >>> variances = hessian_variances(decode, z, directions, difference="exact")
        >>> [variance.mean().item() for variance in variances]
        [4.0, 144.0]
    """
    seconds = second_derivatives(decode, z, directions, epsilon=epsilon, difference=difference)
    return tuple(second.var(dim=0) for second in seconds)
