"""Mean and covariance of samples between their channels: what every SVD meta-layer starts from."""

import torch
from torch import Tensor

from disentangle.distributed.all_reduce import count_processes, sum_over_processes


def moments(samples: Tensor, *, scratch: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and covariance `(1/M) Σ (x − x̄)(x − x̄)ᵀ` of samples.

    Centred before they are multiplied: `E[x xᵀ] − x̄ x̄ᵀ` loses the digits that the mean has more
    than the deviation.

    Args:
        samples: `(…, M, C)`, float32 or float64.
        scratch: Like `samples`, overwritten: where nothing is differentiated, it saves new memory.

    Returns:
        Shapes `(…, C)` and `(…, C, C)`.

    Examples:
        >>> mean, covariance = moments(torch.tensor([[3.0, 0.0], [1.0, 2.0]]))
        >>> mean, covariance
        (tensor([2., 1.]), tensor([[ 1., -1.],
                [-1.,  1.]]))
    """
    mean = samples.mean(-2, keepdim=True)
    centred = torch.sub(samples, mean, out=scratch)
    return mean.squeeze(-2), centred.mT @ centred / samples.shape[-2]


def pooled_moments(samples: Tensor, *, scratch: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the samples of all images together.

    Args:
        samples: `(N, M, C)`, float32 or float64, in either order of the last two in memory.
        scratch: As in `moments`.

    Returns:
        Shapes `(C,)` and `(C, C)`.
    """
    means, covariances = moments(samples, scratch=scratch)
    mean = means.mean(0)
    offsets = means - mean
    return mean, covariances.mean(0) + offsets.mT @ offsets / len(means)


def joint_moments(mean: Tensor, covariance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the samples of all processes, from those of each.

    Source: Chan, Golub and LeVeque, The American Statistician 37 (1983).

    Args:
        mean: Mean of the samples of this process, `(C,)`.
        covariance: Covariance of the samples of this process, `(C, C)`.
        count: How many samples these are of; processes may have different numbers.

    Returns:
        Shapes `(C,)` and `(C, C)`, the same in every process.
    """
    if count_processes() == 1:
        return mean, covariance
    samples = torch.full((), count, dtype=mean.dtype, device=mean.device)
    share = samples / sum_over_processes(samples)
    joint = sum_over_processes(share * mean)
    offset = mean - joint
    return joint, sum_over_processes(share * (covariance + torch.outer(offset, offset)))
