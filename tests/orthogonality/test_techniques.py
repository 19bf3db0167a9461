from functools import partial
from typing import get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from disentangle.orthogonality import (
    LOSS_TECHNIQUES,
    OPTIMIZER_TECHNIQUES,
    WEIGHT_TECHNIQUES,
    Technique,
    nearest_orthogonal_gradient,
    optimal_learning_rate,
    orthogonal_loss,
)
from disentangle.orthogonality.nog import NOG_SCALES, nearest_orthogonal_gradients

few = settings(max_examples=40, deadline=None, derandomize=True)
SHAPES = [(5, 9), (9, 5), (4, 3, 3, 3), (8, 2, 1, 1)]


class RefuseToWait(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU, of the operations that can be seen from here."""

    WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero", "eigh", "svd", "qr", "lu", "solve")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func._schema.name, kwargs or {}
        assert not name.endswith(self.WAITING), name
        leaves = pytree.tree_leaves((args, kwargs))
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
        if name == "aten::_to_copy" and "device" in kwargs:
            devices.add(kwargs["device"].type)
        # Comparisons and products take a number in the host's memory along; these copy it.
        copies = name in ("aten::where", "aten::copy_", "aten::_to_copy")
        moves = len(devices) > 1 and copies
        assert not moves or kwargs.get("non_blocking"), name
        return func(*args, **kwargs)


def test_names_of_techniques():
    assert get_args(Technique) == ("nog", "olr", "nou", "ol", "ow", "ow_kernel", "sn")
    parts = (*OPTIMIZER_TECHNIQUES, *LOSS_TECHNIQUES, *WEIGHT_TECHNIQUES)
    assert get_args(Technique) == parts


# NOG


@few
@given(st.integers(0, 2**31), st.sampled_from(SHAPES))
def test_nog_is_the_polar_factor_in_the_shape_of_the_gradient(seed, shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    U, _, Vh = torch.linalg.svd(gradient.double().flatten(1), full_matrices=False)
    expected = (U @ Vh).float().reshape(shape)
    torch.testing.assert_close(nearest_orthogonal_gradient(gradient), expected, atol=2e-6, rtol=0)


@few
@given(st.integers(0, 2**31), st.sampled_from(SHAPES), st.floats(1e-6, 1e6))
def test_nog_can_keep_the_norm_of_the_gradient(seed, shape, size):
    gradient = size * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    unit = nearest_orthogonal_gradient(gradient)
    result = nearest_orthogonal_gradient(gradient, scale="gradient")
    torch.testing.assert_close(result.norm(), gradient.norm())
    torch.testing.assert_close(result, unit * gradient.norm() / unit.norm())


def test_nog_keeps_the_norm_of_a_gradient_of_low_rank():
    gradient = torch.randn(6, 2) @ torch.randn(2, 9)
    result = nearest_orthogonal_gradient(gradient, scale="gradient")
    torch.testing.assert_close(result.norm(), gradient.norm())
    sigmas = torch.linalg.svdvals(result)
    torch.testing.assert_close(sigmas[:2], gradient.norm().expand(2) / 2**0.5)
    assert sigmas[2] < 1e-5


def test_the_kept_norm_may_leave_the_range_of_half_precision():
    gradient = torch.full((2, 80_000), 600.0, dtype=torch.float16)
    gradient[1] *= -(torch.arange(80_000) % 2 * 2 - 1)
    assert gradient.double().norm() > torch.finfo(torch.float16).max
    result = nearest_orthogonal_gradient(gradient, scale="gradient")
    assert result.dtype == torch.float16
    torch.testing.assert_close(result.double().norm(), gradient.double().norm(), rtol=1e-3, atol=0)


def test_an_unknown_scale():
    for function in (
        nearest_orthogonal_gradient,
        lambda G, scale: nearest_orthogonal_gradients([G], scale=scale),
    ):
        with pytest.raises(ValueError, match="must be one of unit, gradient, got 'norm'"):
            function(torch.eye(2), scale="norm")


@pytest.mark.parametrize("scale", NOG_SCALES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nog_keeps_zero_and_dtype(dtype, scale):
    gradient = torch.zeros(3, 2, 2, 2, dtype=dtype)
    assert torch.equal(nearest_orthogonal_gradient(gradient, scale=scale), gradient)


@pytest.mark.parametrize("scale", NOG_SCALES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("entry", [torch.nan, torch.inf, -torch.inf])
def test_nog_passes_a_nonfinite_gradient_through(dtype, entry, scale):
    gradient = torch.randn(3, 2, 2).to(dtype)
    gradient[1, 1, 0] = entry
    result = nearest_orthogonal_gradient(gradient, scale=scale)
    torch.testing.assert_close(result, gradient, equal_nan=True, atol=0, rtol=0)


@pytest.mark.parametrize("scale", NOG_SCALES)
def test_nog_of_several_is_that_of_each(scale):
    # Some alike, one as large as is treated by itself, and one shape in two dtypes.
    shapes = [*SHAPES, *SHAPES[:2], (9, 5), (5, 3, 3), (3, 2**15), (3, 2**15)]
    gradients = [torch.randn(shape) for shape in shapes]
    gradients += [torch.randn(5, 9, dtype=torch.float64) for _ in range(2)]
    before = [gradient.clone() for gradient in gradients]
    results = nearest_orthogonal_gradients(gradients, scale=scale)
    assert [result.shape for result in results] == [gradient.shape for gradient in gradients]
    expected = [nearest_orthogonal_gradient(gradient, scale=scale) for gradient in gradients]
    torch.testing.assert_close(results, expected, atol=1e-6, rtol=1e-6)
    assert all(map(torch.equal, gradients, before))
    assert nearest_orthogonal_gradients([]) == []


def test_nog_of_several_passes_only_the_nonfinite_through():
    gradients = [torch.randn(3, 4) for _ in range(3)]
    gradients[1][2, 3] = torch.inf
    results = nearest_orthogonal_gradients(gradients)
    assert torch.equal(results[1], gradients[1])
    for i in (0, 2):
        torch.testing.assert_close(results[i], nearest_orthogonal_gradient(gradients[i]))


@pytest.mark.parametrize("scale", NOG_SCALES)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 2)])
def test_nog_passes_gradcheck(shape, scale):
    gradient = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda G: nearest_orthogonal_gradient(G, scale=scale), gradient)


@pytest.mark.parametrize("scale", NOG_SCALES)
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((6, 40), torch.float32), ((9, 4, 1, 1), torch.float32), ((3, 5), torch.float64)],
)
def test_nog_compiles(shape, dtype, scale):
    nog = partial(nearest_orthogonal_gradient, scale=scale)
    compiled = torch.compile(nog, fullgraph=True, backend="aot_eager")
    gradient = torch.randn(shape, dtype=dtype)
    torch.testing.assert_close(compiled(gradient), nog(gradient))
    gradient[0, 0] = torch.nan
    torch.testing.assert_close(compiled(gradient), gradient, equal_nan=True, atol=0, rtol=0)


# OLR


def newton_step(w, l):  # noqa: E741
    def objective(eta):
        return (w - eta * l).square().sum().square()

    eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objective(eta), eta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, eta)
    return (-slope / curvature).item()


@few
@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-1, 1))
def test_olr_is_the_newton_step(seed, scale, mix):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    l = scale * (mix * w + torch.randn(4, 6, generator=generator, dtype=torch.float64))  # noqa: E741
    eta = newton_step(w, l)
    assume(abs(eta) > 1e-9)
    assert optimal_learning_rate(w, l, 1e9).item() == pytest.approx(eta if eta > 0 else 1e9)
    assert optimal_learning_rate(w, l, abs(eta) / 2).item() == abs(eta) / 2


def test_olr_of_a_large_weight():
    # More than one piece, the last of them shorter.
    w, l = torch.randn(2, 3, 70_001), torch.randn(2, 3, 70_001)  # noqa: E741
    l += w  # noqa: E741
    expected = newton_step(w.double(), l.double())
    assert optimal_learning_rate(w, l, 10.0).item() == pytest.approx(expected, rel=1e-12)


def test_olr_passes_gradcheck():
    w, l = torch.randn(2, 4, 3, dtype=torch.float64)  # noqa: E741
    l += w  # noqa: E741
    assert 0 < optimal_learning_rate(w, l, 10.0) < 10
    rate = torch.tensor(10.0, dtype=torch.float64)
    arguments = [tensor.requires_grad_() for tensor in (w, l, rate)]
    assert torch.autograd.gradcheck(optimal_learning_rate, arguments)


def test_the_derivative_of_the_base_rate_is_zero():
    zeros, ones = torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    for w, l in [(zeros, ones), (ones, zeros), (zeros, zeros), (ones, -ones)]:  # noqa: E741
        rate = optimal_learning_rate(w, l, 0.3)
        for gradient in torch.autograd.grad(rate, [w, l]):
            assert torch.equal(gradient, torch.zeros(2, 2))


@pytest.mark.parametrize("as_tensor", [False, True])
def test_olr_compiles(as_tensor):
    compiled = torch.compile(optimal_learning_rate, fullgraph=True, backend="aot_eager")
    w, l = torch.randn(3, 2, 2), torch.randn(3, 2, 2)  # noqa: E741
    for gradient in (w, l, -w, torch.zeros_like(w)):
        base = torch.tensor(0.3) if as_tensor else 0.3
        expected = optimal_learning_rate(w, gradient, base)
        torch.testing.assert_close(compiled(w, gradient, base), expected)


def test_olr_of_extreme_entries():
    unit = torch.randn(3, 5).abs()
    expected = optimal_learning_rate(unit, unit.flip(0), 10.0).item()
    for w_scale, l_scale in [(1e-30, 1e-30), (1e15, 1e15), (1e-30, 1e15), (1e15, 1e-30)]:
        rate = optimal_learning_rate(w_scale * unit, l_scale * unit.flip(0), 1e300)
        assert rate.item() == pytest.approx(expected * w_scale / l_scale, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_olr_of_a_degenerate_pair_is_the_base_rate(dtype):
    ones, zeros = torch.ones(2, 2, dtype=dtype), torch.zeros(2, 2, dtype=dtype)
    for entry in (torch.nan, torch.inf, -torch.inf):
        spoilt = ones.clone()
        spoilt[0, 1] = entry
        for w, l in [(spoilt, ones), (ones, spoilt), (spoilt, spoilt), (zeros, spoilt)]:  # noqa: E741
            assert optimal_learning_rate(w, l, 0.3).item() == 0.3
    for w, l in [(zeros, ones), (ones, zeros), (zeros, zeros), (ones, -ones)]:  # noqa: E741
        assert optimal_learning_rate(w, l, 0.3).item() == 0.3


def test_olr_takes_a_tensor_as_base_rate_and_leaves_it_alone():
    base = torch.tensor(0.25)
    rate = optimal_learning_rate(torch.ones(2, 2), torch.ones(2, 2), base)
    assert rate.item() == 0.25
    assert rate is not base
    assert rate.shape == ()
    assert optimal_learning_rate(torch.ones(2, 2), torch.ones(2, 2), torch.tensor(0.5)) == 1 / 3
    # As torch's optimizers do.
    assert optimal_learning_rate(torch.ones(2, 2), torch.ones(2, 2), base[None]).shape == ()


def test_olr_refuses_another_shape():
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(3, 2\)"):
        optimal_learning_rate(torch.ones(2, 3), torch.ones(3, 2), 0.1)


# No waiting for a GPU

needs_fake_gpu = pytest.mark.skipif(
    torch.__version__.startswith("2.8.") and not torch.cuda.is_available(),
    reason="PyTorch 2.8 asks for a driver even where tensors have no values",
)


@needs_fake_gpu
def test_on_a_gpu_the_host_is_not_kept_waiting():
    """Without a GPU: operations on tensors without values are watched."""
    with FakeTensorMode(), RefuseToWait():
        gradients = [torch.empty(shape, device="cuda") for shape in [*SHAPES, (6, 70_000), (5, 9)]]
        rates = [0.1, torch.empty((), device="cuda"), torch.empty(())]
        for scale in NOG_SCALES:
            results = nearest_orthogonal_gradients(gradients, scale=scale)
            shapes = [gradient.shape for gradient in gradients]
            assert [result.shape for result in results] == shapes
        for gradient, rate in zip(gradients, rates, strict=False):
            assert nearest_orthogonal_gradient(gradient).is_cuda
            assert optimal_learning_rate(gradient, gradient, rate).is_cuda


@needs_fake_gpu
def test_what_keeps_the_host_waiting_is_noticed():
    with FakeTensorMode():
        A = torch.empty(3, 3, device="cuda")
        one = torch.ones(())
        for wait in (
            lambda: A.sum().item(),
            lambda: A.cpu(),
            lambda: one.cuda(),
            lambda: torch.where(A.sum() > 0, A.sum(), one),
            lambda: torch.linalg.eigh(A),
            lambda: torch.linalg.svd(A),
        ):
            with pytest.raises(AssertionError, match="aten::"), RefuseToWait():
                wait()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_this_gpu_the_host_is_not_kept_waiting():
    gradients = [torch.randn(shape, device="cuda") for shape in [*SHAPES, (6, 70_000), (5, 9)]]
    nearest_orthogonal_gradients(gradients)  # handles of libraries are made at the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = nearest_orthogonal_gradients(gradients)
        for rate in (0.1, torch.tensor(0.1)):
            for gradient in gradients:
                optimal_learning_rate(gradient, gradient, rate)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result, gradient in zip(results, gradients, strict=True):
        expected = nearest_orthogonal_gradient(gradient.cpu())
        torch.testing.assert_close(result.cpu(), expected, atol=1e-5, rtol=0)


# OL


def test_orthogonal_loss_of_known_matrices():
    wide = torch.linalg.qr(torch.randn(9, 4))[0].T
    assert orthogonal_loss([wide]).item() == pytest.approx(0, abs=1e-12)
    assert orthogonal_loss([wide.T]).item() == pytest.approx(0, abs=1e-12)
    assert orthogonal_loss([wide.reshape(4, 1, 3, 3)]).item() == pytest.approx(0, abs=1e-12)
    # Gram 4I: three on the diagonal of 4 × 4.
    assert orthogonal_loss([2 * wide]).item() == pytest.approx(9 / 4, rel=1e-5)
    assert orthogonal_loss(iter([wide, 2 * wide])).item() == pytest.approx(9 / 8, rel=1e-5)


def test_orthogonal_loss_descends_to_an_orthonormal_matrix():
    weight = (0.3 * torch.randn(3, 8)).requires_grad_()
    optimizer = SGD([weight], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        orthogonal_loss([weight]).backward()
        optimizer.step()
    torch.testing.assert_close(weight @ weight.T, torch.eye(3), atol=1e-4, rtol=0)


def test_orthogonal_loss_passes_gradcheck():
    matrices = [torch.randn(shape, dtype=torch.float64) for shape in [(2, 4), (4, 2), (2, 1, 3)]]
    matrices = [matrix.requires_grad_() for matrix in matrices]
    assert torch.autograd.gradcheck(lambda *Us: orthogonal_loss(Us), matrices)


def test_orthogonal_loss_says_what_it_expects():
    with pytest.raises(ValueError, match="at least one matrix, got none"):
        orthogonal_loss([])
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        orthogonal_loss([torch.ones(3)])
