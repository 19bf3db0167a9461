"""Principal axes of a symmetric matrix, with a gradient that survives equal eigenvalues."""

import torch
from torch import Tensor

from disentangle.linalg.primitives import reciprocal


def principal_axes(matrix: Tensor) -> Tensor:
    """The eigenvectors of a symmetric matrix, as columns, from the smallest eigenvalue on.

    Each has its entry of largest magnitude positive. They are unique where the eigenvalues differ;
    where two are equal, to rounding, some basis is returned, and no gradient flows between the two.
    Near that the gradient is large, as the reciprocal of the gap.

    Args:
        matrix: `(…, n, n)`, floating point and finite.

    Returns:
        `(…, n, n)`.

    Raises:
        RuntimeError: When a second derivative reaches it.

    Examples:
        >>> principal_axes(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor([[0., 1.],
                [1., 0.]])
    """
    # In float32 LAPACK turns the axes of near eigenvalues.
    return _Axes.apply(matrix.double())[0].to(matrix.dtype)


class _Axes(torch.autograd.Function):
    @staticmethod
    def forward(matrix: Tensor) -> tuple[Tensor, Tensor]:
        lambdas, V = torch.linalg.eigh(matrix)
        largest = V.abs().argmax(dim=-2, keepdim=True)
        return V * V.gather(-2, largest).sign(), lambdas

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, G: Tensor, _: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        V, lambdas = ctx.saved_tensors
        # dV = V K, K_ij = (Vᵀ dA V)_ij / (λj − λi)
        gaps = lambdas[..., None, :] - lambdas[..., :, None]
        rounding = torch.finfo(gaps.dtype).eps * gaps.shape[-1]
        largest = lambdas.abs().amax(-1)[..., None, None]
        gaps = torch.where(gaps.abs() > rounding * largest, gaps, 0.0)
        turned = V @ (reciprocal(gaps) * (V.mT @ G)) @ V.mT
        return 0.5 * (turned + turned.mT)
