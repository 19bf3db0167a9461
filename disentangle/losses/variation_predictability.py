"""Regulariser of variation predictability: make the moved latent predictable from the images.

Zhu, Xu and Tao, "Learning Disentangled Representations with Latent Variation Predictability",
ECCV 2020, https://arxiv.org/abs/2007.12885.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import cross_entropy


def choose_axes(numbers: Tensor, count: int) -> Tensor:
    """Choose one of `count` axes for each sample, `(N,)`, from uniform numbers `(N,)` in `[0, 1)`.

    Examples:
        >>> import torch
        >>> choose_axes(torch.tensor([0.0, 0.4, 0.99]), 3)
        tensor([0, 1, 2])
    """
    return (numbers * count).long()


def move_along(z: Tensor, axes: Tensor, chosen: Tensor, amounts: Tensor) -> Tensor:
    """Move each latent along one axis: `z + δ e_d`.

    Args:
        z: Latents `(N, D)`.
        axes: Unit vectors `(A, D)`.
        chosen: Index of the axis of each latent, `(N,)`, from 0 to `A − 1`: see `choose_axes`.
        amounts: `δ`, `(N,)`; standard normal numbers in the code of OroJaR's simple GANs.

    Returns:
        `(N, D)`.

    Raises:
        ValueError: If the shapes do not fit.

    Examples:
        >>> import torch
        >>> z, chosen = torch.zeros(2, 3), torch.tensor([2, 0])
        >>> move_along(z, torch.eye(3), chosen, torch.tensor([0.5, -1.0]))
        tensor([[ 0.0000,  0.0000,  0.5000],
                [-1.0000,  0.0000,  0.0000]])
    """
    if z.ndim != 2 or axes.ndim != 2 or axes.shape[1] != z.shape[1]:
        raise ValueError(
            "latents and axes must have the shapes (N, D) and (A, D), got "
            f"{tuple(z.shape)} and {tuple(axes.shape)}"
        )
    for name, values in (("chosen", chosen), ("amounts", amounts)):
        if values.shape != z.shape[:1]:
            raise ValueError(
                f"{name} must have one number per latent, ({len(z)},), got {tuple(values.shape)}"
            )
    return z + amounts[:, None] * axes.to(z)[chosen]  # (N, 1) · (N, D)


def variation_loss(
    recogniser: Callable[[Tensor], Tensor], images: Tensor, moved: Tensor, chosen: Tensor
) -> Tensor:
    """Cross-entropy of predicting the moved axis from the difference of two images.

    `−E log q(d | G(z) − G(z + δ e_d))`, in nats: a lower bound on the information between the axis
    and the change, up to the constant `log A`. The generator and the recogniser both minimise it.

    Weight in the simple GANs of OroJaR and NOG: 1e-5. Their code has the sigmoid cross-entropy of
    each axis in place of this one, which is the paper's.

    Cost per step: one further decode, of the moved latents, and its backward pass; the recogniser
    is small. The images of `z` serve the adversarial loss as well.

    Blind to meaning: axes need to look different, not to be one factor each, and a rotation of good
    axes may do as well. It is, but for the network, the score that `variation_predictability`
    measures: a generator trained on it is at an advantage there.

    Args:
        recogniser: Maps differences `(N, C, H, W)` to logits `(N, A)`.
        images: `G(z)`, `(N, C, H, W)`.
        moved: `G(z + δ e_d)`, of the same shape.
        chosen: The axis `d` that moved, `(N,)`.

    Raises:
        ValueError: If the shapes do not fit.

    Examples:
        >>> import torch
        >>> images, moved = torch.zeros(2, 1, 1, 2), torch.eye(2).view(2, 1, 1, 2)
        >>> recogniser = lambda difference: 9 * difference.flatten(1).abs()
        >>> variation_loss(recogniser, images, moved, torch.tensor([0, 1])) < 0.001
        tensor(True)
    """
    if images.shape != moved.shape:
        shapes = f"{tuple(images.shape)} and {tuple(moved.shape)}"
        raise ValueError(f"images before and after must have the same shape, got {shapes}")
    logits = recogniser(images - moved)
    if logits.ndim != 2 or chosen.shape != logits.shape[:1]:
        raise ValueError(
            "logits and chosen axes must have the shapes (N, A) and (N,), got "
            f"{tuple(logits.shape)} and {tuple(chosen.shape)}"
        )
    return cross_entropy(logits, chosen)
