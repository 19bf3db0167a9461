"""Total correlation of the codes of a batch, estimated from their posteriors: β-TCVAE.

Chen, Li, Grosse and Duvenaud, "Isolating Sources of Disentanglement in Variational Autoencoders",
NeurIPS 2018, https://arxiv.org/abs/1802.04942.
"""

import math

import torch
from torch import Tensor


def total_correlation(
    z: Tensor, mean: Tensor, log_variance: Tensor, *, data_size: int | None = None
) -> Tensor:
    """`E log q(z) − E Σ_k log q(z_k)`, in nats; 0 if the codes are independent.

    `q(z)`, the posterior averaged over the data set, is estimated at each code from the posteriors
    of the batch. The logarithm of an estimate is biased, and most so where a batch is small for the
    information in a code. Cost and memory are `N² K`.

    By default each posterior of the batch counts the same: minibatch-weighted sampling, but for the
    constant `(K − 1) log data_size`, which has no gradient and which disentanglement_lib leaves
    out too. It is then the total correlation of the mixture of these posteriors. With `data_size`
    it is minibatch-stratified sampling, whose estimate of `q(z)` is unbiased: see
    `stratified_weights`.

    Args:
        z: Samples of the posteriors, `(N, K)`.
        mean: Means of the posteriors, `(N, K)`.
        log_variance: Logarithms of the variances, `(N, K)`.
        data_size: Images of the data set, at least `N`.

    Raises:
        ValueError: If the shapes differ; as `stratified_weights`.

    Examples:
        >>> z = torch.randn(1000, 1).repeat(1, 2)  # one number twice
        >>> total_correlation(z, z, torch.full_like(z, -4)) > 1
        tensor(True)
    """
    if z.ndim != 2 or not z.shape == mean.shape == log_variance.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (z, mean, log_variance))
        raise ValueError(f"codes, means and log variances must all be (N, K), got {shapes}")
    if data_size is None:
        log_weights = torch.full((len(z), 1), -math.log(len(z)), dtype=z.dtype, device=z.device)
    else:
        log_weights = stratified_weights(len(z), data_size).log().to(z)
    log_q = _pair_log_densities(z, mean, log_variance)
    joint = torch.logsumexp(log_q.sum(2) + log_weights, dim=1)
    marginals = torch.logsumexp(log_q + log_weights[..., None], dim=1)  # (N, N, K) -> (N, K)
    return (joint - marginals.sum(1)).mean()


def stratified_weights(batch_size: int, data_size: int) -> Tensor:
    """Weight of posterior `i` of a batch in the estimate of `q(z_j)`, `(N, N)` as `[j, i]`.

    `1 / data_size` for a code's own posterior, `1 / (N − 1)` for the others except the next one,
    which gets what is missing to 1. The average over all batches that hold image `j` is the
    posterior averaged over the data set: appendix C.2 of the paper. In its code the own posterior
    is taken to be the first of the batch for every code, a slip that is not repeated here.

    Args:
        batch_size: `N`, at least 2.
        data_size: At least `N`.

    Raises:
        ValueError: If the batch has fewer than 2 images, or more than the data set.

    Examples:
        >>> stratified_weights(3, 10)
        tensor([[0.1000, 0.4000, 0.5000],
                [0.5000, 0.1000, 0.4000],
                [0.4000, 0.5000, 0.1000]])
    """
    if not 2 <= batch_size <= data_size:
        raise ValueError(
            "stratified sampling needs a batch of at least 2 images and no more than the data set "
            f"has, got a batch of {batch_size} and {data_size} images"
        )
    M = batch_size - 1
    row = torch.full((batch_size,), 1 / M)
    row[0], row[1] = 1 / data_size, (data_size - M) / (data_size * M)
    places = torch.arange(batch_size)
    return row[(places - places[:, None]) % batch_size]


def _pair_log_densities(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """`log q(z_jk | x_i)` as `[j, i, k]`, `(N, N, K)`."""
    squares = (z[:, None] - mean).square() * (-log_variance).exp()  # (N, 1, K) − (N, K)
    return -0.5 * (squares + log_variance + math.log(2 * math.pi))
