"""Spectral norm: a weight divided by its largest singular value, tracked by power iteration.

Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018,
https://arxiv.org/abs/1802.05957.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from disentangle.distributed.dtensor import gather
from disentangle.linalg.custom_function import transforms_active
from disentangle.linalg.primitives import frobenius_norm, without_autocast
from disentangle.orthogonality.parameters import as_matrix


def widen(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least.

    Examples:
        >>> widen(torch.ones(1, dtype=torch.bfloat16)).dtype, widen(torch.ones(1).double()).dtype
        (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def largest_singular_vector(matrix: Tensor) -> Tensor:
    """A left singular vector of the largest singular value, from the float64 Gram matrix.

    Its sign is arbitrary; so is its direction among the vectors of equal singular values.

    Args:
        matrix: `(…, m, n)`, finite.

    Returns:
        Unit vectors `(…, m)`, in the dtype of `matrix`.

    Examples:
        >>> largest_singular_vector(torch.tensor([[1.0, 0.0, 0.0], [0.0, -2.0, 0.0]])).abs()
        tensor([0., 1.])
    """
    M = matrix.detach().double()
    if M.shape[-2] > M.shape[-1]:
        u = M @ torch.linalg.eigh(M.mT @ M).eigenvectors[..., -1:]
    else:
        u = torch.linalg.eigh(M @ M.mT).eigenvectors[..., -1:]
    return functional.normalize(u, dim=-2).squeeze(-1).to(matrix.dtype)


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length 1 in the directions of others of any length; zero for zero.

    `functional.normalize` takes a length below 1e-12 for zero, and in float32 the square of one
    beyond 1e19 is infinite.

    Examples:
        >>> unit(torch.tensor([[3e30, 4e30], [0.0, 1e-30]]), dim=1)
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000]])
    """
    largest = vectors.abs().amax(dim, keepdim=True)
    return functional.normalize(vectors / torch.where(largest > 0, largest, 1.0), dim=dim)


def power_step(matrix: Tensor, vector: Tensor) -> Tensor:
    """One power iteration `u ← M Mᵀ u / ‖M Mᵀ u‖`; `u` itself where that is zero.

    Args:
        matrix: `(…, m, n)`.
        vector: `(…, m)`.

    Returns:
        `(…, m)`, nearer to the left singular vector of the largest singular value.

    Examples:
        >>> power_step(torch.diag(torch.tensor([2.0, 1.0])), torch.tensor([0.6, 0.8]))
        tensor([0.9487, 0.3162])
    """
    u = vector[..., None]
    stepped = matrix @ unit(matrix.mT @ u, dim=-2)
    # A weight that passes through zero must not take the vector with it.
    kept = torch.where(stepped.abs().amax(dim=-2, keepdim=True) > 0, stepped, u)
    return unit(kept, dim=-2).squeeze(-1)


class LargestSingularValue(nn.Module):
    """The largest singular value of a matrix that changes slowly.

    `σ = ‖Mᵀ u‖` for a unit vector `u`, kept as a buffer. It never exceeds the true value, and falls
    short by the square of the angle between `u` and the singular vector. A call that trains, in
    training mode and with gradients on, first moves `u` by one power iteration. All others leave
    it: what is drawn or logged on the way does not change what is trained.

    In training mode, `torch.func.grad`, `vmap` and `jvp` raise a `RuntimeError`: they do not allow
    in-place updates of a buffer.

    `u` need not have length 1 (a running average of vectors does not): it is normalised before use.

    Args:
        rows: The rows `m` of the matrix, to which `u` must be fitted before use.
        device: Device of `u`.
        dtype: Dtype of `u`.

    Examples:
        >>> tracker = LargestSingularValue(rows=2)
        >>> tracker.fit(torch.diag(torch.tensor([3.0, 1.0])))
        >>> round(tracker(torch.diag(torch.tensor([6.0, 1.0]))).item(), 4)
        6.0
    """

    u: Tensor

    def __init__(
        self, rows: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("u", torch.ones(rows, device=device, dtype=dtype))

    def fit(self, matrix: Tensor) -> None:
        """Fits `u` to a matrix `(m, n)` that is another one, by an eigendecomposition."""
        self.u.copy_(largest_singular_vector(matrix))

    def forward(self, matrix: Tensor) -> Tensor:
        """The largest singular value of `(m, n)`, 0-d; differentiable, with `u` held constant."""
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self._move(power_step(matrix, self.u.to(matrix.dtype)))
        # A new tensor: the next iteration, in place, may come before this one's backward.
        v = matrix.mT @ unit(self.u.to(matrix.dtype), dim=0)
        return frobenius_norm(v[None]).squeeze()

    def _move(self, u: Tensor) -> None:
        try:
            self.u.copy_(u)
        except RuntimeError as error:
            if not transforms_active():
                raise
            raise RuntimeError(
                "a spectral norm in training mode updates its vector in-place, which "
                "torch.func.grad, vmap and jvp do not allow: call eval() on the module first"
            ) from error


class SpectralNorm(nn.Module):
    """SN as a parametrization: `W / σ(W)`, with σ the largest singular value of `as_matrix(W)`.

    The result has spectral norm 1 but for the lag of the power iteration (see
    `LargestSingularValue`), which makes it larger while the weight changes: measured with Adam on
    weights from 6 × 64 to 128 × 1152, 1.07 to 1.16 on average and up to 1.4. The norm is that of
    the matrix which NOG sees, for a convolution not that of its operator. As the result does not
    depend on the scale of `W`, the gradient is at a right angle to it: see `Orthonormal`.

    It differs from `torch.nn.utils.parametrizations.spectral_norm` in five ways. Of a transposed
    convolution the matrix is `(in, out·kh·kw)`, where torch takes `(out, in·kh·kw)`. Under
    autocast σ keeps float32, where torch's has bfloat16. Only a pass that trains moves the vector,
    where torch's moves at every look at the weight in training mode: GAN training makes images
    without gradients for its discriminator, and a resumed run must end bit for bit as the whole
    one does. A running average of the buffers still gives norm 1, where torch's vectors shrink.
    The vector starts converged.

    Args:
        weight: As `as_matrix` takes it; what the power iteration is prepared for.

    Examples:
        >>> from torch.nn.utils import parametrize
        >>> linear = nn.Linear(8, 4)
        >>> norm = SpectralNorm(linear.weight)
        >>> linear = parametrize.register_parametrization(linear, "weight", norm)
        >>> round(torch.linalg.matrix_norm(linear.weight, ord=2).item(), 4)
        1.0
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows = widen(as_matrix(weight).detach()[:, 0])
        self.sigma = LargestSingularValue(len(rows), device=rows.device, dtype=rows.dtype)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight of norm 1 that a free weight stands for; zero for zero.

        Of one that is divided over processes (FSDP2) every process gets all, and all must take
        part.
        """
        if weight.is_meta:  # a shape without values
            return weight
        weight = gather(weight)
        with without_autocast(weight):
            sigma = self.sigma(widen(as_matrix(weight)))
            return (weight / torch.where(sigma > 0, sigma, 1.0)).to(weight.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The free weight for a weight that is assigned: itself, so that its norm becomes 1.

        Raises:
            ValueError: If the weight is zero or not finite.
        """
        if weight.is_meta:
            return weight
        if not 0 < torch.linalg.vector_norm(gather(weight).double()) < torch.inf:
            raise ValueError(
                "expected a finite weight that is not zero, to divide by its spectral norm, "
                f"got one of shape {tuple(weight.shape)} that is zero or not finite"
            )
        self.sigma.fit(widen(as_matrix(gather(weight))))
        return weight
