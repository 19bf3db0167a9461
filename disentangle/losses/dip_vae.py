"""Penalties on the covariance of the codes: DIP-VAE I and II.

Kumar, Sattigeri and Balakrishnan, "Variational Inference of Disentangled Latent Concepts from
Unlabeled Observations", ICLR 2018, https://arxiv.org/abs/1711.00848.
"""

import torch
from torch import Tensor


def code_covariance(mean: Tensor, log_variance: Tensor | None = None) -> Tensor:
    """Covariance `(K, K)` of the posteriors' means, or of samples of the posteriors.

    Divided by `N` and not by `N − 1`, as in disentanglement_lib.

    Args:
        mean: Means of the posteriors, `(N, K)`.
        log_variance: Logarithms of the variances, `(N, K)`; with them, the covariance is that of
            samples of the posteriors (DIP-VAE II), without, of the means (I).

    Examples:
        >>> code_covariance(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(2, 2))
        tensor([[2., 0.],
                [0., 1.]])
    """
    centred = mean - mean.mean(0)
    covariance = centred.mT @ centred / len(mean)
    return covariance if log_variance is None else covariance + log_variance.exp().mean(0).diag()


def covariance_penalty(
    covariance: Tensor, *, off_diagonal_weight: float, diagonal_weight: float
) -> Tensor:
    """`λ_od Σ_{i≠j} C_ij² + λ_d Σ_i (C_ii − 1)²`: a penalty on a covariance `(K, K)`.

    Examples:
        >>> covariance = torch.tensor([[3.0, 0.5], [0.5, 1.0]])
        >>> covariance_penalty(covariance, off_diagonal_weight=10, diagonal_weight=1)
        tensor(9.)
    """
    squares = (covariance - torch.eye(len(covariance)).to(covariance)).square()
    diagonal = squares.diagonal().sum()
    return off_diagonal_weight * (squares.sum() - diagonal) + diagonal_weight * diagonal
