"""An affine map of samples that is made from their own mean and covariance."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from disentangle.linalg.primitives import without_autocast
from disentangle.models.layers.moments import pooled_moments

# From mean `(C,)`, covariance `(C, C)` and the parameters to `W (C, C)` and `b (C,)`.
Solve = Callable[..., tuple[Tensor, Tensor]]


def affine_map(samples: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """`W x + b` of each sample: a 1 × 1 convolution.

    Args:
        samples: `(N, M, C)`, in either order of the last two in memory.
        W: `(C, C)`.
        b: `(C,)`.

    Returns:
        `(N, M, C)`, in the order of `samples`.
    """
    return _in_order(_product(samples, W, b), samples)


def _product(samples: Tensor, W: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the product of `affine_map`, as `(N, C, M)` if that is the order in memory."""
    W = W.expand(samples.shape[0], -1, -1)
    # A product into a matrix that is transposed in memory takes ten times as long.
    if _channels_last(samples):
        return torch.baddbmm(b, samples, W.mT, out=out)
    return torch.baddbmm(b[:, None], W, samples.mT, out=out)


def _in_order(product: Tensor, samples: Tensor) -> Tensor:
    return product if _channels_last(samples) else product.mT


# What it differentiates by is a graph of its own, which a compiler does not follow.
@torch.compiler.disable
def map_by_moments(samples: Tensor, solve: Solve, *parameters: Tensor) -> Tensor:
    """`y = W x + b` of each sample, with `W, b = solve(mean, covariance, *parameters)`.

    What autograd makes of `pooled_moments` and a product, in fewer passes through memory: five
    products of the size of the samples in all, two forward and three backward, nothing of that size
    kept but the samples, and their gradient written once. Autograd differentiates `solve`.

    Args:
        samples: `(N, M, C)`, float32 or float64, in either order of the last two in memory; neither
            is copied.
        solve: Anything that can be differentiated.
        *parameters: What `solve` takes besides, and gets a gradient.

    Returns:
        `(N, M, C)`, in the order of `samples`.

    Raises:
        RuntimeError: When a second derivative reaches it.

    Examples:
        >>> def standardise(mean, covariance):
        ...     W = covariance.diagonal().rsqrt().diag()
        ...     return W, -W @ mean
        >>> map_by_moments(torch.tensor([[[5.0]], [[1.0]]]), standardise).flatten()
        tensor([ 1., -1.])
    """
    # Transposed here, since no view of what a custom function makes may be changed in place, as
    # a ReLU that follows does.
    return _in_order(_MomentMap.apply(samples, solve, *parameters), samples)


class _MomentMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, samples: Tensor, solve: Solve, *parameters: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        # First for the centred samples: on a CPU memory that is new takes as long as a product.
        out = samples.new_empty(_in_order(samples, samples).shape)
        measured = pooled_moments(samples, scratch=_in_order(out, samples))
        inputs = (*(m.requires_grad_() for m in measured), *parameters)
        with torch.enable_grad():
            outputs = solve(*inputs)
        ctx.save_for_backward(samples)
        ctx.inputs, ctx.outputs = inputs, outputs
        W, b = (output.detach() for output in outputs)
        return _product(samples, W, b, out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, G: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        (samples,) = ctx.saved_tensors
        G = _in_order(G, samples)
        with without_autocast(samples):
            wanted = [x for x in ctx.inputs if x.requires_grad]
            # Two sums in turn take half as long as one over both dimensions.
            towards_map = ((G.mT @ samples).sum(0), G.sum(1).sum(0))
            found = iter(torch.autograd.grad(ctx.outputs, wanted, towards_map, retain_graph=True))
            # A parameter that is frozen gets none.
            gradients: list[Any] = [next(found) if x.requires_grad else None for x in ctx.inputs]
            if ctx.needs_input_grad[0]:
                mean, W = ctx.inputs[0].detach(), ctx.outputs[0].detach()
                return _towards_samples(samples, mean, G, W, *gradients[:2]), None, *gradients[2:]
            return None, None, *gradients[2:]


def _towards_samples(
    samples: Tensor, mean: Tensor, G: Tensor, W: Tensor, g_mean: Tensor, g_covariance: Tensor
) -> Tensor:
    """`Wᵀ G + (g_Σ + g_Σᵀ)(x − mean) / NM + g_mean / NM` of each sample."""
    count = samples.shape[:2].numel()
    K = (g_covariance + g_covariance.mT) / count
    constant = g_mean / count - mean @ K
    gradient = affine_map(G, W.mT, constant)
    K = K.expand(samples.shape[0], -1, -1)
    if _channels_last(gradient):
        return gradient.baddbmm_(samples, K)
    return gradient.mT.baddbmm_(K, samples.mT).mT


def _channels_last(samples: Tensor) -> bool:
    return samples.stride(2) == 1
