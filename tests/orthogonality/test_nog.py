from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disentangle.orthogonality import nearest_orthogonal_gradient
from disentangle.orthogonality.nog import NOG_SCALES, nearest_orthogonal_gradients

few = settings(max_examples=40, deadline=None, derandomize=True)
SHAPES = [(5, 9), (9, 5), (4, 3, 3, 3), (8, 2, 1, 1)]


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
