import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_sylvester
from torch.autograd import gradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp

from disentangle.linalg import polar, polar_factor, polar_factors
from disentangle.linalg.custom_function import NoSecondDerivativeError
from disentangle.linalg.gram import EigenRoot, IteratedRoot, resolution_of

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
few = settings(max_examples=30, deadline=None, derandomize=True)


def make_matrix(shape, *, rank, condition=1.0, dtype=torch.float32, seed=0):
    """Random singular vectors; `rank` singular values from 1 down to `1 / condition`."""
    generator = torch.Generator().manual_seed(seed)

    def orthonormal(rows):
        square = torch.randn(*shape[:-2], rows, rank, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(square)[0]

    exponents = torch.linspace(0, 1, rank, dtype=torch.float64)
    sigmas = torch.tensor(1 / condition, dtype=torch.float64) ** exponents
    return ((orthonormal(shape[-2]) * sigmas) @ orthonormal(shape[-1]).mT).to(dtype)


def reference(matrix, rank):
    """The partial isometry from the float64 SVD, its rank known."""
    U, _, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return U[..., :rank] @ Vh[..., :rank, :]


shapes = st.tuples(st.integers(1, 12), st.integers(1, 40)).flatmap(
    lambda shape: st.sampled_from([shape, shape[::-1], (3, *shape), (2, 1, *shape[::-1])])
)
seeds = st.integers(0, 2**31)


# The polar factor


@few
@given(shapes, seeds, st.floats(0, 3), st.sampled_from([torch.float32, torch.float64]))
def test_polar_factor_is_that_of_the_float64_svd(shape, seed, log_condition, dtype):
    rank = min(shape[-2:])
    matrix = make_matrix(shape, rank=rank, condition=10**log_condition, dtype=dtype, seed=seed)
    polar, expected = polar_factor(matrix), reference(matrix, rank)
    assert polar.dtype == dtype
    assert torch.linalg.norm(polar - expected) <= 1e-6 * torch.linalg.norm(expected)


@few
@given(shapes, seeds, st.data())
def test_polar_factor_of_a_deficient_matrix_is_the_partial_isometry(shape, seed, data):
    rank = data.draw(st.integers(1, min(shape[-2:])), label="rank")
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), label="dtype")
    matrix = make_matrix(shape, rank=rank, condition=10, dtype=dtype, seed=seed)
    polar = polar_factor(matrix).double()
    torch.testing.assert_close(polar, reference(matrix, rank), atol=2e-6, rtol=0)
    # A partial isometry undoes its transpose, and the trace of its projection is its rank.
    torch.testing.assert_close(polar @ polar.mT @ polar, polar, atol=5e-6, rtol=0)
    assert torch.allclose(polar.square().sum((-2, -1)).round(), torch.tensor(rank).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rank", [1, 4, 6])
def test_low_precision_keeps_its_dtype_and_finds_its_rank(dtype, rank):
    matrix = make_matrix((6, 200), rank=rank, condition=5, dtype=dtype)
    polar = polar_factor(matrix)
    assert polar.dtype == dtype
    rounding = torch.finfo(dtype).eps / 2
    torch.testing.assert_close(polar.double(), reference(matrix, rank), atol=rounding, rtol=0)


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e3])
@pytest.mark.parametrize("shape", [(6, 8192), (8192, 6), (6, 32768), (64, 576)])
def test_polar_factor_of_real_layers(shape, condition):
    matrix = make_matrix(shape, rank=min(shape), condition=condition)
    expected = reference(matrix, min(shape))
    error = torch.linalg.norm(polar_factor(matrix) - expected) / torch.linalg.norm(expected)
    assert error <= 1e-6


@pytest.mark.parametrize(("shape", "rank"), [((6, 131072), 5), ((2, 131072), 1), ((64, 576), 10)])
def test_rounding_is_not_taken_for_a_direction_of_a_large_matrix(shape, rank):
    # Accumulated in float32, as a gradient is.
    matrix = torch.randn(shape[0], rank) @ torch.randn(rank, shape[1])
    assert polar_factor(matrix).square().sum().item() == pytest.approx(rank, abs=1e-4)


def test_a_weak_direction_of_a_wide_matrix_is_kept():
    # A threshold of max(m, n) eps σmax would stand at 0.016.
    matrix = make_matrix((6, 131072), rank=6, condition=1e4)
    polar = polar_factor(matrix)
    torch.testing.assert_close(polar @ polar.T, torch.eye(6))


@few
@given(shapes, seeds)
def test_polar_factor_is_idempotent_and_blind_to_scale(shape, seed):
    matrix = make_matrix(shape, rank=min(shape[-2:]), condition=50, seed=seed)
    polar = polar_factor(matrix)
    torch.testing.assert_close(polar_factor(polar), polar, atol=1e-6, rtol=0)
    torch.testing.assert_close(polar_factor(-matrix), -polar)
    torch.testing.assert_close(polar_factor(1e-25 * matrix), polar, atol=1e-6, rtol=0)
    torch.testing.assert_close(polar_factor(1e30 * matrix), polar, atol=1e-6, rtol=0)
    torch.testing.assert_close(polar_factor(matrix.mT), polar.mT, atol=1e-6, rtol=0)


@few
@given(seeds, st.sampled_from([torch.float32, torch.float64]))
def test_polar_factor_turns_with_its_matrix(seed, dtype):
    matrix = make_matrix((5, 30), rank=5, condition=20, dtype=dtype, seed=seed)
    rotation = make_matrix((5, 5), rank=5, dtype=dtype, seed=seed + 1)
    expected = rotation @ polar_factor(matrix)
    torch.testing.assert_close(polar_factor(rotation @ matrix), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 4, 4), (1, 1)])
def test_zero_goes_to_zero(shape, dtype):
    assert torch.equal(polar_factor(torch.zeros(shape, dtype=dtype)), torch.zeros(shape).to(dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("entry", [torch.nan, torch.inf, -torch.inf])
def test_only_the_matrix_with_a_nonfinite_entry_is_lost(dtype, entry):
    matrices = torch.randn(3, 4, 7).to(dtype)
    expected = polar_factor(matrices)
    matrices[1, 2, 3] = entry
    polar = polar_factor(matrices)
    assert polar[1].isnan().all()
    assert torch.equal(polar[[0, 2]], expected[[0, 2]])


def test_a_batch_is_treated_matrix_by_matrix():
    matrices = torch.randn(2, 3, 6, 3000)
    expected = torch.stack([torch.stack([polar_factor(m) for m in row]) for row in matrices])
    torch.testing.assert_close(polar_factor(matrices), expected)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 3), (0, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_matrices_stay_empty(shape, dtype):
    assert polar_factor(torch.empty(shape, dtype=dtype)).shape == shape


def test_the_argument_and_its_layout_are_left_alone():
    matrix = torch.randn(40, 6)
    before = matrix.clone()
    assert polar_factor(matrix).is_contiguous()
    assert torch.equal(matrix, before)


# Its gradient


def gradient_by_sylvester(A, G):
    """In float64: `K Q + H⁻¹ G (I − QᵀQ)` with `H K + K H = G Qᵀ − Q Gᵀ`, for full rank."""
    A, G = A.double(), G.double()
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    Q, H = U @ Vh, (U * S) @ U.T
    K = torch.from_numpy(solve_sylvester(H.numpy(), H.numpy(), (G @ Q.T - Q @ G.T).numpy()))
    return K @ Q + torch.linalg.solve(H, G - G @ Q.T @ Q)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6), (2, 3, 5)])
def test_the_gradient_passes_gradcheck(shape):
    assert gradcheck(polar_factor, torch.randn(shape, dtype=torch.float64).requires_grad_())


EQUAL = {
    "orthonormal": torch.eye(4, 9),
    "equal but for a scale": 3 * make_matrix((4, 9), rank=4),
    "two equal": torch.diag(torch.tensor([1.0, 1.0, 2.0, 3.0])) @ torch.eye(4, 9),
    "nearly equal": torch.diag(torch.tensor([1.0, 1 + 1e-6, 2.0, 2 - 1e-5])) @ torch.eye(4, 9),
    "ill-conditioned": make_matrix((4, 9), rank=4, condition=1e3),
}


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_right_at_equal_singular_values(roots, name, dtype):
    matrix = EQUAL[name].to(dtype).clone().requires_grad_()
    gradient = torch.randn(4, 9, dtype=dtype)
    polar_factor(matrix).backward(gradient)
    expected = gradient_by_sylvester(matrix.detach(), gradient)
    # Rounding to the dtype, which the inverse root magnifies by the condition number.
    bound = 8 * torch.finfo(dtype).eps * torch.linalg.cond(matrix.detach().double())
    error = torch.linalg.norm(matrix.grad - expected) / torch.linalg.norm(expected)
    assert error <= max(bound, 1e-9 if roots is IteratedRoot else 0)


def test_the_gradient_of_a_deficient_matrix_is_that_at_its_rank(roots):
    left, right = torch.randn(4, 2, dtype=torch.float64), torch.randn(2, 9, dtype=torch.float64)
    d_left, d_right = torch.randn_like(left), torch.randn_like(right)
    matrix = (left @ right).requires_grad_()
    gradient = torch.randn(4, 9, dtype=torch.float64)
    polar_factor(matrix).backward(gradient)
    # Along a curve of matrices of rank 2 the partial isometry is smooth.
    slope = (matrix.grad * (d_left @ right + left @ d_right)).sum()
    h = 1e-5
    ahead, behind = (
        reference((left + t * d_left) @ (right + t * d_right), rank=2) for t in (h, -h)
    )
    expected = (gradient * (ahead - behind)).sum().item() / (2 * h)
    # The iteration regularises singular values by about 1e-7 of the largest: over 40 seeds it errs
    # by 1e-6 in the median and by 4e-4 at most, in rounding that differs between processors.
    tolerance = 1e-7 if roots is EigenRoot else 1e-3
    assert slope.item() == pytest.approx(expected, rel=tolerance)


def test_there_is_no_second_derivative():
    matrix = torch.randn(2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(polar_factor(matrix)[0, 0], matrix, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        first.sum().backward()


# Transforms of torch.func


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 3, 5)])
def test_forward_mode_passes_gradcheck(roots, shape):
    matrix = torch.randn(shape, dtype=torch.float64).requires_grad_()
    assert gradcheck(polar_factor, matrix, check_forward_ad=True)


@pytest.mark.parametrize("name", EQUAL)
def test_forward_mode_is_the_gradient_at_equal_singular_values(roots, name):
    matrix = EQUAL[name].double()
    reverse = torch.autograd.functional.jacobian(polar_factor, matrix)
    scale = reverse.abs().max().item()
    torch.testing.assert_close(jacfwd(polar_factor)(matrix), reverse, atol=1e-9 * scale, rtol=0)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_transforms_of_torch_func(roots, shape):
    matrices = torch.randn(2, *shape, dtype=torch.float64)
    expected = torch.stack([torch.autograd.functional.jacobian(polar_factor, A) for A in matrices])
    torch.testing.assert_close(torch.vmap(polar_factor)(matrices), polar_factor(matrices))
    for jacobian in (jacrev(polar_factor), jacfwd(polar_factor)):
        torch.testing.assert_close(jacobian(matrices[0]), expected[0])
        torch.testing.assert_close(torch.vmap(jacobian)(matrices), expected)
    # The batch lies in another dimension than the first, or within the transform.
    G = torch.randn_like(matrices)
    gradients = torch.einsum("bij,bijkl->bkl", G, expected)
    last = torch.vmap(lambda A, g: grad(lambda x: (polar_factor(x) * g).sum())(A), in_dims=(2, 0))
    torch.testing.assert_close(last(matrices.movedim(0, 2), G), gradients)
    together = grad(lambda A: (torch.vmap(polar_factor)(A) * G).sum())(matrices)
    torch.testing.assert_close(together, gradients)


def test_transforms_of_large_matrices_and_of_no_gradient(roots):
    matrices = torch.randn(2, 20, 300)
    torch.testing.assert_close(torch.vmap(polar_factor)(matrices), polar_factor(matrices))
    with torch.no_grad():
        _, change = jvp(polar_factor, (matrices[0],), (matrices[1],))
    leaf = matrices[0].clone().requires_grad_()
    polar_factor(leaf).backward(matrices[1])
    torch.testing.assert_close(change, leaf.grad)  # the derivative is its own adjoint


def test_the_derivative_is_linear_in_its_direction(roots):
    A, G, direction = torch.randn(3, 4, 6, dtype=torch.float64)
    pull_back = vjp(polar_factor, A)[1]
    expected = pull_back(direction)[0]
    torch.testing.assert_close(
        jvp(lambda g: pull_back(g)[0], (G,), (direction,)), (pull_back(G)[0], expected)
    )
    gradient = grad(lambda g: (pull_back(g)[0] * direction).sum())(G)
    torch.testing.assert_close(gradient, expected)
    assert torch.vmap(pull_back)(torch.randn(5, 4, 6).double())[0].shape == (5, 4, 6)


def total(matrix):
    return polar_factor(matrix)[0, 0]


@pytest.mark.parametrize(
    "second",
    [
        hessian(total),
        jacrev(jacrev(total)),
        jacrev(jacfwd(total)),
        jacfwd(jacfwd(total)),
        lambda A: torch.vmap(hessian(total))(A[None]),
    ],
)
def test_nested_transforms_say_that_there_is_no_second_derivative(roots, second):
    with pytest.raises(NoSecondDerivativeError, match=r"polar_factor .* torch.func.hessian"):
        second(torch.randn(2, 3))


# The way of a GPU, products of matrices only, also on a CPU


@pytest.fixture(params=[EigenRoot, IteratedRoot], ids=["eigen", "iterated"])
def roots(request, monkeypatch):
    monkeypatch.setattr(polar, "_root_class", lambda matrix: request.param)
    return request.param


@pytest.fixture
def iterated(monkeypatch):
    monkeypatch.setattr(polar, "_root_class", lambda matrix: IteratedRoot)


@pytest.mark.parametrize("condition", [1.0, 30.0, 1e3])
@pytest.mark.parametrize("shape", [(6, 8192), (64, 27), (27, 64), (2, 5, 40), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_iteration_finds_the_polar_factor(iterated, shape, condition, dtype):
    rank = min(shape[-2:])
    matrix = make_matrix(shape, rank=rank, condition=condition, dtype=dtype)
    expected = reference(matrix, rank)
    error = torch.linalg.norm(polar_factor(matrix) - expected) / torch.linalg.norm(expected)
    assert error <= {torch.float32: 1e-7, torch.float64: 1e-9}[dtype]


@pytest.mark.parametrize(("t", "expected"), [(0.1, 7.875e-5), (1.0, 0.591), (10.0, 1 - 6.56e-6)])
def test_the_iteration_makes_a_slope_of_the_threshold(iterated, t, expected):
    # Beside 1, so that the norm, and with it the threshold, hardly changes.
    weak = t * resolution_of(torch.ones(2, 2)) ** 0.5
    factor = polar_factor(torch.diag(torch.tensor([1.0, weak])))
    assert factor[0, 0].item() == 1
    assert factor[1, 1].item() == pytest.approx(expected, rel=0.05 if t < 5 else 1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_iteration_finds_the_rank(iterated, dtype):
    matrix = make_matrix((6, 200), rank=3, condition=5, dtype=dtype)
    # Rounding leaves singular values of up to 0.29 thresholds, spread over three directions.
    noise = {torch.float64: 1e-9}.get(dtype, 4e-4)
    error = torch.linalg.norm(polar_factor(matrix).double() - reference(matrix, 3))
    assert error <= noise + 20 * torch.finfo(dtype).eps
    zero = torch.zeros(2, 3, 4, dtype=dtype)
    assert torch.equal(polar_factor(zero), zero)


def test_the_iteration_keeps_not_a_numbers_apart(iterated):
    matrices = torch.randn(3, 4, 7)
    expected = polar_factor(matrices)
    matrices[1, 2, 3] = torch.inf
    assert polar_factor(matrices)[1].isnan().all()
    torch.testing.assert_close(polar_factor(matrices)[[0, 2]], expected[[0, 2]], atol=0, rtol=0)


def test_several_at_once(roots):
    shapes = [(6, 40), (40, 6), (6, 3000), (5, 6), (6, 6), (2, 6, 8), (6, 41)]
    matrices = [torch.randn(shape) for shape in shapes]
    matrices.append(torch.randn(6, 9).double())
    for matrix, factor in zip(matrices, polar_factors(matrices), strict=True):
        assert factor.dtype == matrix.dtype
        torch.testing.assert_close(factor, polar_factor(matrix), atol=2e-7, rtol=0)
    assert polar_factors([]) == []
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        polar_factors([torch.ones(2, 2), torch.ones(3)])


def test_the_iteration_asks_the_host_for_nothing(iterated, count_scalars):
    matrices = [torch.randn(6, 50).requires_grad_(), torch.randn(6, 3000), torch.randn(30, 6)]
    with count_scalars() as count:
        polar_factor(matrices[0]).sum().backward()
        polar_factors(matrices)
    assert count.calls == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_cuda_nothing_synchronises():
    matrices = [torch.randn(6, n, device="cuda") for n in (64, 8192, 65536)]
    matrices[0].requires_grad_()
    polar_factors(matrices)  # allocates its workspaces
    torch.cuda.set_sync_debug_mode("error")
    try:
        polar_factor(matrices[0]).sum().backward()
        factors = polar_factors(matrices)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for matrix, factor in zip(matrices, factors, strict=True):
        expected = polar_factor(matrix.detach().cpu())
        torch.testing.assert_close(factor.cpu(), expected, atol=1e-6, rtol=0)


def test_autocast_does_not_lower_the_precision():
    matrix = torch.randn(6, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        factor = polar_factor(matrix)
    assert factor.dtype == torch.float32
    assert torch.equal(factor, polar_factor(matrix))


@pytest.mark.skipif(
    torch.__version__.startswith("2.8."), reason="PyTorch 2.8 cannot compile its gradient"
)
def test_polar_factor_compiles():
    compiled = torch.compile(polar_factor, fullgraph=True, backend="aot_eager")
    matrix, twin = (torch.randn(6, 50).requires_grad_() for _ in range(2))
    twin.data.copy_(matrix.data)
    torch.testing.assert_close(compiled(matrix), polar_factor(twin), atol=2e-7, rtol=0)
    compiled(matrix)[0, 0].backward()
    polar_factor(twin)[0, 0].backward()
    torch.testing.assert_close(matrix.grad, twin.grad, atol=2e-7, rtol=0)


def test_polar_factor_says_what_it_expects():
    with pytest.raises(ValueError, match=r"at least 2 dimensions.*got shape \(3,\)"):
        polar_factor(torch.ones(3))
    with pytest.raises(ValueError, match=r"floating point, got torch.int64"):
        polar_factor(torch.ones(3, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"floating point, got torch.complex64"):
        polar_factor(torch.ones(3, 3, dtype=torch.complex64))
