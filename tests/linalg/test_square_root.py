import functools
import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from disentangle.linalg import (
    SQUARE_ROOT_METHODS,
    condition_number,
    matrix_inverse_sqrt,
    matrix_sqrt,
    polar_factor,
)
from disentangle.linalg.newton_schulz import default_iterations

ROOTS = [matrix_sqrt, matrix_inverse_sqrt]
EXACT = ["eigh", "newton_schulz"]
BY_EIGENVALUES = ["eigh", "svd_pade", "svd_taylor"]
MATRIX_PRODUCTS = ["newton_schulz", "mtp", "mpa"]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
few = settings(max_examples=30, deadline=None, derandomize=True)

methods = pytest.mark.parametrize("method", SQUARE_ROOT_METHODS)
roots = pytest.mark.parametrize("root", ROOTS)
conditions = pytest.mark.parametrize("condition", [1.0, 10.0, 1e2, 1e3, 1e4])


def make_basis(n, batch=(), seed=0):
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(*batch, n, n, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(square)[0]


def compose(Q, values):
    return (Q * values[..., None, :]) @ Q.mT


def spectrum(n, condition):
    return condition ** -torch.linspace(0, 1, n, dtype=torch.float64)


def make_covariance(n=6, condition=100.0, batch=(), dtype=torch.float64):
    return compose(make_basis(n, batch), spectrum(n, condition)).to(dtype)


def symmetric(*shape):
    G = torch.randn(shape, dtype=torch.float64)
    return G + G.mT


def gradient(root, A, G, method, **options):
    leaf = A.detach().clone().requires_grad_()
    return torch.autograd.grad(root(leaf, method, **options), leaf, G)[0]


def exact_values(root, lambdas):
    return lambdas.sqrt() if root is matrix_sqrt else lambdas.rsqrt()


def reference_gradient(root, A, G):
    """By a Sylvester equation of SciPy (Schur method), which knows of no eigenvectors."""
    S = scipy.linalg.sqrtm(A.numpy())
    right = G.numpy()
    if root is matrix_inverse_sqrt:
        R = np.linalg.inv(S)
        right = -R @ right @ R
    return torch.from_numpy(scipy.linalg.solve_sylvester(S, S, right))


def rounding(root, n, condition, dtype=torch.float64):
    """What perturbing `A` by `n eps ‖A‖` makes of its root, relative to the root."""
    power = 0.5 if root is matrix_sqrt else 1.0
    return n * torch.finfo(dtype).eps * condition**power


def relative_error(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm()).item()


# What truncation does to an eigenvalue a = λ / ‖A‖_F, from the definition of each method


def newton_schulz_values(a, iterations):
    """`√p` of `p ← p (3 − p)² / 4`: the computed root over the exact one, of both roots."""
    for _ in range(iterations):
        a = a * (3 - a) ** 2 / 4
    return a.sqrt()


def taylor_values(root, a):
    """The computed root over the exact one."""
    power = 0.5 if root is matrix_sqrt else -0.5
    series = sum(scipy.special.binom(power, k) * (a - 1) ** k for k in range(11))
    return series / a**power


def pade_values(root, a):
    """With `ρ = (1 − √a) / (1 + √a)`: `(1 + ρ^11) / (1 − ρ^11)`, or its reciprocal."""
    rho = ((1 - a.sqrt()) / (1 + a.sqrt())) ** 11
    values = (1 + rho) / (1 - rho)
    return values if root is matrix_sqrt else 1 / values


def model_values(root, method, a):
    if method == "newton_schulz":
        return newton_schulz_values(a, default_iterations(torch.float64))
    return {"mtp": taylor_values, "mpa": pade_values}[method](root, a)


def pairs(values):
    return values[:, None] + values[None, :]


def lyapunov_gradient(root, method, lambdas, G):
    """The gradient of `mtp` and `mpa` in the basis of the eigenvectors."""
    norm = lambdas.norm()
    r = exact_values(root, lambdas) * model_values(root, method, lambdas / norm)
    signs = r / (norm.sqrt() if root is matrix_sqrt else r.norm())
    for _ in range(8):
        signs = signs * (3 - signs**2) / 2
    if root is matrix_inverse_sqrt:
        G = -G * torch.outer(r**2, r**2)
    return G / pairs(r) * pairs(signs) / 2


def exact_gradient(root, lambdas, G):
    s = lambdas.sqrt()
    return G / pairs(s) if root is matrix_sqrt else -G / (pairs(s) * torch.outer(s, s))


# Values


@roots
@conditions
@pytest.mark.parametrize("method", ["auto", *BY_EIGENVALUES, "newton_schulz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_methods_agree_with_scipy(root, condition, method, dtype):
    A = make_covariance(16, condition, dtype=dtype)
    expected = torch.from_numpy(scipy.linalg.sqrtm(A.double().numpy()))
    if root is matrix_inverse_sqrt:
        expected = torch.linalg.inv(expected)
    assert relative_error(root(A, method), expected) <= rounding(root, 16, condition, dtype)


@roots
@conditions
@pytest.mark.parametrize("method", MATRIX_PRODUCTS)
def test_the_error_of_an_iteration_is_its_truncation(root, condition, method):
    n = 16
    Q, lambdas = make_basis(n), spectrum(n, condition)
    values = exact_values(root, lambdas)
    model = model_values(root, method, lambdas / lambdas.norm())
    actual = root(compose(Q, lambdas), method)
    allowed = rounding(root, n, condition)
    assert relative_error(actual, compose(Q, values * model)) <= allowed
    truncation = (model - 1).abs().max().item()
    assert relative_error(actual, compose(Q, values)) <= truncation + allowed


@pytest.mark.parametrize("condition", [1.0, 3.0, 10.0, 100.0])
def test_the_taylor_polynomial_errs_by_no_more_than_its_remainder(condition):
    Q, lambdas = make_basis(8), spectrum(8, condition)
    norm = lambdas.norm()
    x = 1 - lambdas / norm
    # All later coefficients are negative and smaller than the eleventh.
    remainder = norm.sqrt() * abs(scipy.special.binom(0.5, 11)) * x**11 / (1 - x)
    excess = (Q.mT @ matrix_sqrt(compose(Q, lambdas), "mtp") @ Q).diagonal() - lambdas.sqrt()
    assert (excess >= -1e-14).all()
    assert (excess <= remainder + 1e-14).all()


@roots
@pytest.mark.parametrize("iterations", [1, 5, 10])
def test_newton_schulz_takes_the_iterations_asked_for(root, iterations):
    lambdas = torch.tensor([1.0, 0.3, 0.01], dtype=torch.float64)
    expected = exact_values(root, lambdas) * newton_schulz_values(
        lambdas / lambdas.norm(), iterations
    )
    actual = root(lambdas.diag(), "newton_schulz", iterations=iterations)
    torch.testing.assert_close(actual, expected.diag())


def test_five_or_ten_iterations_are_far_from_converged():
    A = make_covariance(64, 1e4)
    expected = matrix_inverse_sqrt(A, "eigh")
    errors = [
        relative_error(matrix_inverse_sqrt(A, "newton_schulz", iterations=count), expected)
        for count in (5, 10)
    ]
    assert errors[0] > 0.8
    assert errors[1] > 0.1
    assert relative_error(matrix_inverse_sqrt(A, "newton_schulz"), expected) <= 1e-11


def test_the_default_of_iterations_follows_the_dtype():
    assert [default_iterations(dtype) for dtype in FLOATS] == [8, 5, 19, 44]


@few
@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8),
    st.integers(0, 2**31),
    st.sampled_from(EXACT),
)
def test_roots_square_to_what_they_are_roots_of(eigenvalues, seed, method):
    A = compose(make_basis(len(eigenvalues), seed=seed), torch.tensor(eigenvalues).double())
    S, R = matrix_sqrt(A, method), matrix_inverse_sqrt(A, method)
    allowed = rounding(matrix_inverse_sqrt, len(eigenvalues), 1e6)
    torch.testing.assert_close(S @ S, A, rtol=allowed, atol=allowed * A.abs().max().item())
    torch.testing.assert_close(R @ A @ R, torch.eye(len(A)).double(), rtol=0, atol=allowed)
    assert torch.equal(S, S.mT)
    assert torch.linalg.eigvalsh(S)[0] > 0


# Gradients


SPECTRA = {
    "distinct": [2.0, 1.0, 0.5, 0.1],
    "identity": [1.0, 1.0, 1.0, 1.0],
    "a pair": [1.0, 1.0, 2.0, 3.0],
    "nearly a pair": [1.0, 1.0 + 1e-9, 2.0, 3.0],
    "low rank + εI": [3.05, 0.05, 0.05, 0.05],
}
spectra = pytest.mark.parametrize("lambdas", SPECTRA.values(), ids=SPECTRA.keys())


def symmetrised(root, method):
    return lambda A: root((A + A.mT) / 2, method)


@roots
@spectra
@pytest.mark.parametrize("method", EXACT)
def test_gradcheck(root, lambdas, method):
    lambdas = torch.tensor(lambdas, dtype=torch.float64)
    A = torch.stack([lambdas.diag(), compose(make_basis(4), lambdas)]).requires_grad_()
    assert torch.autograd.gradcheck(symmetrised(root, method), A)


@roots
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("name", ["distinct", "a pair"])
def test_gradgradcheck(root, method, name):
    lambdas = torch.tensor(SPECTRA[name], dtype=torch.float64)
    A = compose(make_basis(4), lambdas).requires_grad_()
    assert torch.autograd.gradgradcheck(symmetrised(root, method), A)


@roots
@spectra
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_the_limit_where_eigenvalues_meet(root, lambdas, method, dtype):
    A = compose(make_basis(4), torch.tensor(lambdas).double()).to(dtype)
    G = symmetric(4, 4)
    expected = reference_gradient(root, A.double(), G)
    actual = gradient(root, A, G.to(dtype), method)
    # Eight products, of n eps each; the second derivative adds a power of the condition number.
    allowed = 8 * 4 * torch.finfo(dtype).eps * (max(lambdas) / min(lambdas)) ** 1.5
    assert relative_error(actual, expected) <= allowed


@pytest.mark.parametrize("method", EXACT)
def test_the_gradient_at_the_identity_is_known(method):
    A, G = torch.eye(5, dtype=torch.float64), symmetric(5, 5)
    torch.testing.assert_close(gradient(matrix_sqrt, A, G, method), G / 2)
    torch.testing.assert_close(gradient(matrix_inverse_sqrt, A, G, method), -G / 2)


@roots
@pytest.mark.parametrize("iterations", [1, 5])
def test_newton_schulz_gradient_is_that_of_the_iterations_taken(root, iterations):
    A = make_covariance(4, 100.0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda A: root((A + A.mT) / 2, "newton_schulz", iterations=iterations), A
    )


@roots
@pytest.mark.parametrize("method", ["svd_pade", "svd_taylor"])
@pytest.mark.parametrize("ratio", [0.3, 0.9, 0.99, 0.9999, 1 - 1e-9])
def test_svd_gradients_are_short_by_their_truncation(root, method, ratio):
    Q = make_basis(3)
    lambdas = torch.tensor([1.0, ratio, ratio**2], dtype=torch.float64)
    G = symmetric(3, 3)
    actual = Q.mT @ gradient(root, compose(Q, lambdas), Q @ G @ Q.mT, method) @ Q
    kept = torch.ones_like(G)
    if method == "svd_taylor":
        ratios = torch.minimum(lambdas[:, None] / lambdas, lambdas / lambdas[:, None])
        kept = (1 - ratios**101).fill_diagonal_(1)
    expected = exact_gradient(root, lambdas, G)
    # Eigenvectors of a gap are known to eps / gap, and with them where the truncation acts.
    blur = 1e-15 / (1 - ratio) if method == "svd_taylor" else 0.0
    assert relative_error(actual, kept * expected) <= 1e-14 + 10 * blur
    truncation = (kept - 1).abs().max().item()
    assert relative_error(actual, expected) <= truncation + 1e-14 + 10 * blur


@roots
@pytest.mark.parametrize("method", ["svd_pade", "svd_taylor"])
def test_svd_gradients_vanish_between_eigenvectors_of_one_eigenvalue(root, method):
    lambdas = torch.tensor([1.0, 1.0, 0.25], dtype=torch.float64)
    G = symmetric(3, 3)
    actual = gradient(root, lambdas.diag(), G, method)
    expected = exact_gradient(root, lambdas, G)
    assert actual[0, 1] == actual[1, 0] == 0
    expected[0, 1] = expected[1, 0] = 0
    torch.testing.assert_close(actual, expected)


@roots
@conditions
@pytest.mark.parametrize("method", ["mtp", "mpa"])
def test_lyapunov_gradients_err_by_their_truncation(root, condition, method):
    n = 8
    Q, lambdas, G = make_basis(n), spectrum(n, condition), symmetric(n, n)
    actual = Q.mT @ gradient(root, compose(Q, lambdas), Q @ G @ Q.mT, method) @ Q
    model = lyapunov_gradient(root, method, lambdas, G)
    allowed = rounding(root, n, condition)
    assert relative_error(actual, model) <= allowed
    expected = exact_gradient(root, lambdas, G)
    truncation = (model / expected - 1).abs().max().item()
    assert relative_error(actual, expected) <= truncation + allowed


@pytest.mark.parametrize("method", ["mtp", "mpa"])
def test_lyapunov_gradients_are_right_where_the_spectrum_is_flat(method):
    lambdas, G = torch.tensor([1.0, 0.9], dtype=torch.float64), symmetric(2, 2)
    actual = gradient(matrix_sqrt, lambdas.diag(), G, method)
    # x = 1 − a ≤ 0.34 in both: the remainder of the polynomial is below 1e-7.
    assert relative_error(actual, exact_gradient(matrix_sqrt, lambdas, G)) <= 1e-6


@roots
@pytest.mark.parametrize("method", ["svd_pade", "svd_taylor", "mtp", "mpa"])
def test_approximate_gradients_refuse_to_be_differentiated(root, method):
    A = make_covariance(3).requires_grad_()
    first = torch.autograd.grad(root(A, method)[0, 1], A, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="'eigh' or 'newton_schulz'"):
        first.square().sum().backward()


@roots
@methods
def test_gradients_are_symmetric_and_of_the_symmetric_part(root, method):
    A = make_covariance(4)
    skew = torch.randn(4, 4, dtype=torch.float64)
    lopsided = A + skew - skew.mT
    torch.testing.assert_close(root(lopsided, method), root(A, method), rtol=1e-10, atol=1e-12)
    G = torch.randn(4, 4, dtype=torch.float64)
    actual = gradient(root, lopsided, G, method)
    torch.testing.assert_close(actual, actual.mT)
    torch.testing.assert_close(actual, gradient(root, A, (G + G.mT) / 2, method))


# Singular matrices


@pytest.mark.parametrize("method", BY_EIGENVALUES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_pseudo_inverse_root_whitens_to_the_polar_factor(method, dtype):
    X = (torch.randn(20, 7).double() @ torch.randn(7, 300).double()).to(dtype)
    A = (X.double() @ X.double().mT / 300).to(dtype)
    assert condition_number(A) == torch.inf
    whitened = matrix_inverse_sqrt(A, method) @ X / 300**0.5
    # The covariance is known to eps ‖A‖; its smallest eigenvalue that is not zero tells how well
    # the directions are.
    lambdas = torch.linalg.eigvalsh(A.double())
    allowed = 20 * torch.finfo(dtype).eps * (lambdas[-1] / lambdas[-7]).item()
    assert relative_error(whitened, polar_factor(X)) <= allowed


@pytest.mark.parametrize("method", BY_EIGENVALUES)
def test_a_covariance_of_low_rank_passes_its_gradient_on_to_the_data(method):
    X = (torch.randn(5, 2) @ torch.randn(2, 30)).requires_grad_()
    matrix_sqrt(X @ X.mT, method).square().sum().backward()
    # ‖A^½‖² = tr A = ‖X‖²
    torch.testing.assert_close(X.grad, 2 * X.detach(), rtol=1e-3, atol=1e-2)


@roots
def test_gradcheck_at_constant_rank(root):
    W = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda W: root(W @ W.mT, "eigh"), W)


@methods
@pytest.mark.parametrize("rank", [1, 27])
def test_the_root_of_a_singular_covariance_is_finite(method, rank):
    X = torch.randn(64, rank)
    A = (X @ X.mT).requires_grad_()
    S = matrix_sqrt(A, method)
    S.sum().backward()
    assert A.grad.isfinite().all()
    if method in ("mtp", "mpa"):
        assert S.isfinite().all()
        return
    # The iteration multiplies the rounding of its products by ‖Z‖.
    growth = 1.5 ** default_iterations(torch.float32) if method == "newton_schulz" else 64
    difference = S.detach().double() @ S.detach().double() - A.detach().double()
    assert difference.norm() <= growth * torch.finfo(torch.float32).eps * A.detach().norm()


def test_a_negative_eigenvalue_counts_as_zero():
    A = torch.diag(torch.tensor([4.0, -1.0]))
    for method in BY_EIGENVALUES:
        assert matrix_sqrt(A, method).tolist() == [[2.0, 0.0], [0.0, 0.0]]
        assert matrix_inverse_sqrt(A, method).tolist() == [[0.5, 0.0], [0.0, 0.0]]


@methods
def test_zero(method):
    zero = torch.zeros(2, 3, 3)
    assert torch.equal(matrix_sqrt(zero, method), zero)
    inverse = matrix_inverse_sqrt(zero, method)
    if method in MATRIX_PRODUCTS:
        assert inverse.diagonal(dim1=-2, dim2=-1).isposinf().all()
    else:
        assert torch.equal(inverse, zero)


@pytest.mark.parametrize(
    ("method", "factor"), [("newton_schulz", 1.5**19), ("mtp", 3.7001), ("mpa", 11.0)]
)
def test_the_inverse_root_of_a_null_direction_is_finite_as_documented(method, factor):
    inverse = matrix_inverse_sqrt(torch.diag(torch.tensor([4.0, 0.0])), method)
    assert inverse[1, 1].item() == pytest.approx(factor / 2, rel=1e-4)


# Batches, dtypes, devices


@roots
@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_is_treated_matrix_by_matrix(root, method, dtype):
    # Scales that would drown one another in a norm over the batch.
    scales = torch.tensor([[1e-6, 1.0, 1e6], [3.0, 1e-3, 1e3]], dtype=dtype)
    A = make_covariance(5, 30.0, batch=(2, 3), dtype=dtype) * scales[..., None, None]
    G = symmetric(2, 3, 5, 5).to(dtype)
    value, grad = root(A, method), gradient(root, A, G, method)
    assert value.shape == grad.shape == (2, 3, 5, 5)
    for i, j in np.ndindex(2, 3):
        alone = A[i, j], G[i, j]
        tolerance = 1e-4 if dtype == torch.float32 else 1e-11  # of the matrix as a whole
        for ours, expected in (
            (value[i, j], root(alone[0], method)),
            (grad[i, j], gradient(root, *alone, method)),
        ):
            assert (ours - expected).norm() <= tolerance * expected.norm()


@roots
@methods
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_roots_scale_with_their_matrix(root, method, scale):
    # 1e30 squared is beyond float32.
    A = make_covariance(5, 10.0, dtype=torch.float32)
    power = 0.5 if root is matrix_sqrt else -0.5
    expected = scale**power * root(A, method).double()
    assert relative_error(root(scale * A, method), expected) <= 1e-5


@roots
@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_exact_roots_scale_beyond_the_squares_of_float64(root, scale):
    A = make_covariance(5, 10.0)
    power = 0.5 if root is matrix_sqrt else -0.5
    assert relative_error(root(scale * A, "eigh"), scale**power * root(A, "eigh")) <= 1e-12


@roots
@methods
def test_one_by_one(root, method):
    A = torch.tensor([[[4.0]], [[0.25]]])
    torch.testing.assert_close(root(A, method), A.sqrt() if root is matrix_sqrt else A.rsqrt())
    grad = gradient(root, A, torch.ones_like(A), method)
    expected = A.rsqrt() / 2 if root is matrix_sqrt else -(A**-1.5) / 2
    torch.testing.assert_close(grad, expected)


@roots
@methods
def test_an_empty_batch_stays_empty(root, method):
    assert root(torch.empty(0, 3, 3), method).shape == (0, 3, 3)


@roots
@methods
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_dtype_is_kept(root, method, dtype):
    A = make_covariance(4, 3.0).to(dtype).requires_grad_()
    value = root(A, method)
    value.sum().backward()
    assert value.dtype == A.grad.dtype == dtype
    # Half and bfloat16 are rounded once, after the work in float32.
    options = {"iterations": default_iterations(dtype)} if method == "newton_schulz" else {}
    once = root(A.detach().double(), method, **options)
    allowed = max(torch.finfo(dtype).eps, 1e-6 if dtype != torch.float64 else 1e-14)
    assert relative_error(value.detach(), once) <= allowed


@roots
@methods
def test_autocast_lowers_nothing(root, method):
    A = make_covariance(6, 100.0, dtype=torch.float32)
    G = symmetric(6, 6).float()
    expected = root(A, method), gradient(root, A, G, method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = root(A, method), gradient(root, A, G, method)
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@roots
@methods
@pytest.mark.parametrize("entry", [torch.nan, torch.inf, -torch.inf])
def test_only_the_matrix_with_a_nonfinite_entry_is_lost(root, method, entry):
    A = make_covariance(4, batch=(3,), dtype=torch.float32)
    G = symmetric(3, 4, 4).float()
    value, grad = root(A, method), gradient(root, A, G, method)
    A[1, 2, 0] = entry
    lost = root(A, method), gradient(root, A, G, method)
    for before, after in zip((value, grad), lost, strict=True):
        assert after[1].isnan().all()
        assert torch.equal(after[[0, 2]], before[[0, 2]])


def test_one_iteration_loses_the_whole_matrix_too():
    A = torch.eye(4)
    A[3, 0] = torch.inf
    assert matrix_sqrt(A, "newton_schulz", iterations=1).isnan().all()


@roots
@methods
def test_vmap_and_functional_gradients(root, method):
    A = make_covariance(4, batch=(3,))
    torch.testing.assert_close(torch.vmap(lambda a: root(a, method))(A), root(A, method))
    functional = torch.vmap(torch.func.grad(lambda a: root(a, method)[0, 1]))(A)
    G = torch.zeros_like(A)
    G[:, 0, 1] = 1
    torch.testing.assert_close(functional, gradient(root, A, G, method))


@roots
@spectra
@pytest.mark.parametrize("method", EXACT)
def test_forward_mode_passes_gradcheck(root, lambdas, method):
    A = compose(make_basis(4), torch.tensor(lambdas, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: root(a, method), A, check_forward_ad=True)


@roots
@pytest.mark.parametrize(
    ("method", "name"),
    # A singular matrix makes of newton_schulz's derivative that of the rounding.
    sorted(
        {*itertools.product(SQUARE_ROOT_METHODS, [*SPECTRA, "singular"])}
        - {("newton_schulz", "singular")}
    ),
)
def test_forward_mode_is_the_adjoint_of_the_gradient(root, method, name):
    lambdas = torch.tensor({**SPECTRA, "singular": [2.0, 1.0, 0.5, 0.0]}[name]).double()
    A = torch.stack([lambdas.diag(), compose(make_basis(4), lambdas)])
    reverse = torch.vmap(torch.func.jacrev(lambda a: root(a, method)))(A)
    forward = torch.vmap(torch.func.jacfwd(lambda a: root(a, method)))(A)
    torch.testing.assert_close(forward, reverse, atol=1e-9 * reverse.abs().max().item(), rtol=0)
    with torch.no_grad():
        direction = symmetric(2, 4, 4)
        _, change = torch.func.jvp(lambda a: root(a, method), (A,), (direction,))
    expected = torch.einsum("bijkl,bkl->bij", reverse, direction)
    torch.testing.assert_close(change, expected, atol=1e-9 * expected.abs().max().item(), rtol=0)


@roots
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("name", ["distinct", "a pair"])
def test_second_derivatives_are_the_same_in_every_mode(root, method, name):
    A = compose(make_basis(4), torch.tensor(SPECTRA[name]).double())
    projection, direction = symmetric(4, 4), symmetric(4, 4)

    def forward(function):
        return lambda a: torch.func.jvp(function, (a,), (direction,))[1]

    def reverse(function):
        return lambda a: (torch.func.grad(function)(a) * direction).sum()

    def projected(a):
        return (root(a, method) * projection).sum()

    expected = reverse(reverse(projected))(A)
    # By differences of the gradient, to see that it is a second derivative at all.
    difference = reverse(projected)(A + 1e-5 * direction) - reverse(projected)(A - 1e-5 * direction)
    torch.testing.assert_close(expected, difference / 2e-5, rtol=1e-5, atol=1e-5)
    for second in (
        forward(forward(projected)),
        forward(reverse(projected)),
        reverse(forward(projected)),
        lambda a: torch.vmap(forward(forward(projected)))(a[None])[0],
    ):
        torch.testing.assert_close(second(A), expected)


@roots
def test_third_derivatives_are_the_same_in_every_mode(root):
    A, direction = compose(make_basis(3), torch.tensor([1.0, 1.0, 2.0]).double()), symmetric(3, 3)

    def forward(function):
        return lambda a: torch.func.jvp(function, (a,), (direction,))[1]

    def reverse(function):
        return lambda a: (torch.func.grad(function)(a) * direction).sum()

    def entry(a):
        return root(a, "eigh")[0, 1]

    expected = reverse(reverse(reverse(entry)))(A)
    for modes in itertools.product((forward, reverse), repeat=3):
        third = functools.reduce(lambda function, mode: mode(function), modes, entry)
        torch.testing.assert_close(third(A), expected)


@roots
@pytest.mark.parametrize("method", ["svd_pade", "svd_taylor", "mtp", "mpa"])
def test_nested_transforms_through_approximate_gradients_say_so(root, method):
    A, direction = make_covariance(3), symmetric(3, 3)

    def entry(a):
        return root(a, method)[0, 1]

    for second in (
        torch.func.hessian(entry),
        torch.func.jacrev(torch.func.jacfwd(entry)),
        torch.func.jacfwd(torch.func.jacfwd(entry)),
    ):
        with pytest.raises(RuntimeError, match=r"torch.func.hessian.*'eigh' or 'newton_schulz'"):
            second(A)
    # The first one is linear in what it is applied to, and can be differentiated by that.
    pull_back = torch.func.vjp(lambda a: root(a, method), A)[1]
    _, change = torch.func.jvp(lambda g: pull_back(g)[0], (symmetric(3, 3),), (direction,))
    torch.testing.assert_close(change, pull_back(direction)[0])
    gradient = torch.func.grad(lambda g: (pull_back(g)[0] * A).sum())(direction)
    torch.testing.assert_close(gradient, pull_back(A)[0])


@roots
@methods
def test_a_second_call_gives_the_same(root, method):
    A = make_covariance(4).requires_grad_()
    first, second = root(A, method), root(A, method)
    assert torch.equal(first, second)
    first.sum().backward(retain_graph=True)
    once = A.grad.clone()
    first.sum().backward()
    assert torch.equal(A.grad, 2 * once)


class _Reads(TorchDispatchMode):
    """Counts the scalars that the host reads from a device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@roots
@methods
def test_the_host_reads_nothing(root, method):
    A, G = make_covariance(4, dtype=torch.float32), symmetric(4, 4).float()
    with _Reads() as reads:
        gradient(root, A, G, method)
    assert reads.count == 0


# Bad input


@roots
def test_bad_input(root):
    eye = torch.eye(3)
    choices = "auto, eigh, svd_pade, svd_taylor, newton_schulz, mtp, mpa"
    with pytest.raises(ValueError, match=f"one of {choices}, got 'cholesky'"):
        root(eye, "cholesky")
    with pytest.raises(ValueError, match=r"square.*got shape \(2, 3\)"):
        root(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"not empty.*got shape \(0, 0\)"):
        root(torch.ones(0, 0))
    with pytest.raises(ValueError, match=r"at least 2 dimensions.*got shape \(2,\)"):
        root(torch.ones(2))
    with pytest.raises(ValueError, match=r"floating point, got torch\.int64"):
        root(torch.eye(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"floating point, got torch\.complex64"):
        root(torch.eye(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"dense tensor, got ndarray"):
        root(eye.numpy())
    with pytest.raises(ValueError, match=r"dense tensor, got torch\.sparse_coo"):
        root(eye.to_sparse())
    with pytest.raises(ValueError, match="at least 1, got 0"):
        root(eye, "newton_schulz", iterations=0)
    with pytest.raises(ValueError, match="'newton_schulz', got method 'auto'"):
        root(eye, iterations=5)


def test_known_values():
    A = torch.tensor([[5.0, 4.0], [4.0, 5.0]])  # eigenvalues 9 and 1
    torch.testing.assert_close(matrix_sqrt(A), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    expected = torch.tensor([[2.0, -1.0], [-1.0, 2.0]]) / 3
    torch.testing.assert_close(matrix_inverse_sqrt(A), expected)
    assert math.isclose(matrix_sqrt(torch.tensor([[2.0]])).item(), 2**0.5, rel_tol=1e-6)
