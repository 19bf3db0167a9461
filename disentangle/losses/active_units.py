"""Statistics of the codes of a batch: KL divergence of each, and active units."""

from torch import Tensor

from disentangle.losses.elbo import gaussian_divergence

ACTIVE_VARIANCE = 0.01


def find_active(mean: Tensor) -> Tensor:
    """Find the active codes: those whose posterior mean has a variance above 0.01.

    Source: Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016,
    https://arxiv.org/abs/1509.00519, section 5.1.

    Args:
        mean: Means of the posteriors of images, `(N, K)`; their variance is divided by `N`.

    Returns:
        Boolean, `(K,)`.

    Examples:
        >>> import torch
        >>> find_active(torch.tensor([[1.0, 0.1], [-1.0, 0.2]]))
        tensor([ True, False])
    """
    return mean.var(0, correction=0) > ACTIVE_VARIANCE


def code_terms(mean: Tensor, log_variance: Tensor) -> dict[str, Tensor]:
    """KL divergence of each code from the prior, and the number of active codes.

    `kl/0`, …, `kl/K−1` are in nats, averaged over the batch; their sum is the whole divergence.
    `active_units` counts the active codes, as `find_active`, over the images of the batch and not,
    as in the paper, of the data set.

    Args:
        mean: Means of the posteriors, `(N, K)`.
        log_variance: Logarithms of the variances, `(N, K)`.

    Examples:
        >>> import torch
        >>> mean = torch.tensor([[1.0, 0.1], [-1.0, 0.2]])
        >>> {name: round(term.item(), 4) for name, term in code_terms(mean, 0 * mean).items()}
        {'kl/0': 0.5, 'kl/1': 0.0125, 'active_units': 1.0}
    """
    divergences = gaussian_divergence(mean, log_variance)
    terms = {f"kl/{j}": divergence for j, divergence in enumerate(divergences.unbind())}
    return terms | {"active_units": find_active(mean).sum().to(mean.dtype)}
