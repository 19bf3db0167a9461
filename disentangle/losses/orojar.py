"""OroJaR: make the changes of the image by different latents orthogonal to each other.

Wei, Shi, Liu, Ji, Gao, Wu and Zuo, "Orthogonal Jacobian Regularization for Unsupervised
Disentanglement in Image Generation", ICCV 2021, https://arxiv.org/abs/2108.07668.
"""

from torch import Tensor

from disentangle.losses.directional_derivatives import (
    EPSILON,
    Decode,
    Difference,
    Reduction,
    first_derivatives,
    sum_of_layers,
)


def orojar(
    decode: Decode,
    z: Tensor,
    directions: Tensor,
    *,
    epsilon: float = EPSILON,
    difference: Difference = "finite",
    reduction: Reduction = "max",
) -> Tensor:
    """Loss on the inner products of different columns of the Jacobian by the latent.

    `jacobian_variances`, reduced over the samples, summed over the outputs. As published: two
    Rademacher directions (`rademacher_directions`), ε = 0.1, the maximum.

    Weight in the simple GANs of OroJaR and NOG: 1e-5, 1e-6 on CelebA, on the outputs of the
    convolutions before their norms, all but the last two (`record_layers`).

    Cost per step: `k + 1` times decoding and its backward pass, 3 with two directions. `exact`
    has no error of order ε, and took 1.7 times as long in a trial with a simple GAN of 64
    pixels on a CPU.

    Blind to the length of the columns, so to latents that do nothing; and to what the orthogonal
    changes mean. It falls with the contrast of the outputs, to the fourth power.

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
        >>> columns = torch.tensor([[3.0, 4.0], [-4.0, 3.0], [0.0, 0.0]])  # at a right angle
        >>> orojar(lambda z: z @ columns.T, z, signs, difference="exact")
        tensor(0.)
        >>> columns[2] = 1.0  # their inner product: ‖Jx‖² is 52 or 48
        >>> orojar(lambda z: z @ columns.T, z, signs, difference="exact")
        tensor(8.)
    """
    variances = jacobian_variances(decode, z, directions, epsilon=epsilon, difference=difference)
    return sum_of_layers(variances, reduction)


def jacobian_variances(
    decode: Decode,
    z: Tensor,
    directions: Tensor,
    *,
    epsilon: float = EPSILON,
    difference: Difference = "finite",
) -> tuple[Tensor, ...]:
    """`Var_x ‖J x‖²` of each sample, estimated without bias, for each output.

    `‖J x‖² = Σ_i ‖J_i‖² + Σ_{i≠j} x_i x_j J_i·J_j` for signs `x`. If the columns `J_i` are
    orthogonal, it does not depend on `x`, and the estimate is 0 for any directions. Otherwise its
    mean over all Rademacher directions is `2 Σ_{i≠j} (J_i·J_j)²`, for any `k`. Finite differences
    add `ε/2 xᵀ H x` to `J x`, so that curvature counts as well.

    Arguments and errors are as for `orojar`.

    Returns:
        For each output, `(N,)`.

    Examples:
        >>> import torch
        >>> directions = torch.tensor([1.0, -1.0]).view(2, 1, 1).expand(2, 3, 1)  # (k, N, D)
        >>> jacobian_variances(torch.sin, torch.zeros(3, 1), directions)  # one latent alone
        (tensor([0., 0., 0.]),)
    """
    firsts = first_derivatives(decode, z, directions, epsilon=epsilon, difference=difference)
    return tuple(_squared_norms(first).var(dim=0) for first in firsts)


def _squared_norms(first: Tensor) -> Tensor:
    k, n = first.shape[:2]
    return first.reshape(k, n, -1).square().sum(2)  # (k, N, …) -> (k, N)
