"""Orthogonal weight: a matrix with orthonormal rows or columns, a point of a Stiefel manifold."""

from torch import Tensor, nn

from disentangle.distributed.dtensor import gather, is_sharded, shard_like
from disentangle.linalg import polar_factor
from disentangle.orthogonality.parameters import as_matrix


class Orthonormal(nn.Module):
    """OW as a parametrization: `U = polar_factor(X)` of a free parameter `X`, both `as_matrix`.

    `U` has orthonormal rows (if wide) or columns (if tall) whatever the optimizer does to `X`, to
    rounding: `‖UUᵀ − I‖` is below 1e-6 in float32 after any number of steps. In half precision the
    entries are rounded after float64 arithmetic: for 6 × 64 that leaves 2e-3 in bfloat16 and 2e-4
    in float16, less for wider ones. A weight that is orthonormal at the start stays as it is.

    A look at the weight costs one polar factor, the backward pass hardly more than another
    (`tests/benchmarks/RESULTS.md`). Unlike `torch.nn.utils.parametrizations.orthogonal`, this is
    fast for 6 × 524288, takes half precision and tall and wide alike, for linear layers too. A
    second derivative is not to be had.

    `U` does not depend on the scale of `X`, so the gradient is at a right angle to `X`, as in
    weight normalisation. Three things follow. With SGD the norm of `X` can only grow, with Adam it
    does so on the whole, and the steps of `U` become smaller. Nothing keeps `X` itself orthonormal;
    but the weaker a direction, the larger its gradient, which strengthens it again. Measured over
    10,000 steps of Adam on 6 × 64, with noise for a gradient, the norm grew 1.3-fold at a rate of
    1e-3 and 7-fold at 1e-2; with noise or towards a subspace, the condition number of `X` stayed
    below 3. OL on `X` holds the norm at 1.0 and the condition number below 1.1. OLR without NOG or
    OL finds nothing to choose: see `optimal_learning_rate`.

    Source: the polar retraction, Absil, Mahony and Sepulchre, Optimization Algorithms on Matrix
    Manifolds, 2008, example 4.1.3, https://press.princeton.edu/absil.

    Examples:
        >>> import torch
        >>> from torch.nn.utils import parametrize
        >>> tall = parametrize.register_parametrization(nn.Linear(3, 9), "weight", Orthonormal())
        >>> torch.allclose(tall.weight.T @ tall.weight, torch.eye(3), atol=1e-6)
        True
        >>> tall.weight = 5 * torch.eye(9, 3)
        >>> torch.allclose(tall.weight, torch.eye(9, 3))
        True
    """

    def forward(self, free: Tensor) -> Tensor:
        """The weight that a free parameter stands for: the polar factor of it as a matrix.

        Of a parameter that is divided over processes (FSDP2) every process gets all of it, and all
        must take part.
        """
        if free.is_meta:  # a shape without values
            return free
        free = gather(free)
        return polar_factor(as_matrix(free)).reshape(free.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The free parameter for a weight that is assigned: its nearest orthonormal matrix.

        Raises:
            ValueError: If the weight does not have full rank or is not finite.
        """
        if weight.is_meta:
            return weight
        if is_sharded(weight):
            return shard_like(self.right_inverse(weight.full_tensor()), weight)
        polar = polar_factor(as_matrix(weight))
        # The polar factor is a partial isometry: its squares sum up to the rank.
        rank, full = polar.double().square().sum().item(), min(polar.shape)
        if not abs(rank - full) < 0.5:
            raise ValueError(
                f"expected a weight of rank {full} as a matrix of {tuple(polar.shape)}, since no "
                f"other has a single nearest orthonormal matrix, got rank {rank:.0f}"
            )
        return polar.reshape(weight.shape).contiguous()
