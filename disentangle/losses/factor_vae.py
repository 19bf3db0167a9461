"""Total correlation of codes by a discriminator that tells them from permuted ones: FactorVAE.

Kim and Mnih, "Disentangling by Factorising", ICML 2018, https://arxiv.org/abs/1802.05983.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def permute_codes(codes: Tensor, numbers: Tensor) -> Tensor:
    """Permute each dimension of a batch of codes on its own: independent, same marginals.

    Args:
        codes: `(N, K)`.
        numbers: `(N, K)`, independent and of one continuous distribution: their order decides.

    Returns:
        `(N, K)`.

    Raises:
        ValueError: If the shapes differ.

    Examples:
        >>> codes = torch.tensor([[1, 10], [2, 20], [3, 30]])
        >>> permute_codes(codes, torch.tensor([[0.3, 0.4], [0.2, 0.6], [0.1, 0.5]]))
        tensor([[ 3, 10],
                [ 2, 30],
                [ 1, 20]])
    """
    if codes.ndim != 2 or codes.shape != numbers.shape:
        raise ValueError(
            "codes and numbers must have one shape (N, K), got "
            f"{tuple(codes.shape)} and {tuple(numbers.shape)}"
        )
    return codes.gather(0, numbers.argsort(dim=0))


def density_ratio(logits: Tensor) -> Tensor:
    """`E log(D / (1 − D))`, the discriminator's estimate of the total correlation, in nats.

    It is the total correlation if the discriminator is optimal.

    Args:
        logits: `(N, 2)` of codes: that they are as they come, that they are permuted.

    Examples:
        >>> density_ratio(torch.tensor([[1.0, 0.0], [3.0, 1.0]]))
        tensor(1.5000)
    """
    return (logits[:, 0] - logits[:, 1]).mean()


def tell_apart_loss(real: Tensor, permuted: Tensor) -> Tensor:
    """Loss of the discriminator: mean cross-entropy over the two kinds of codes, in nats.

    Args:
        real: Logits `(N, 2)` of codes as they come.
        permuted: Logits `(N, 2)` of permuted codes.

    Examples:
        >>> tell_apart_loss(torch.zeros(1, 2), torch.zeros(1, 2))  # log 2: it cannot tell
        tensor(0.6931)
    """
    kinds = torch.zeros(len(real), dtype=torch.long, device=real.device)
    return 0.5 * (cross_entropy(real, kinds) + cross_entropy(permuted, kinds + 1))
