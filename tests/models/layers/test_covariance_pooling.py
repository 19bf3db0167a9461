import pytest
import torch

from disentangle.linalg import matrix_sqrt
from disentangle.models.layers import GlobalCovariancePooling
from disentangle.models.layers.covariance_pooling import CovarianceRoot, isqrt_cov

EXACT = ("eigh", "svd_pade", "svd_taylor", "newton_schulz")
METHODS = ("auto", *EXACT, "mtp", "mpa", "isqrt_cov")


def make_features(n=2, c=4, size=5):
    return torch.randn(n, c, size, size, dtype=torch.float64)


def pool(**options):
    """A root without eps, unless there is one."""
    return CovarianceRoot(**{"eps": 0.0} | options)


def make_covariances(n=2, c=4):
    X = torch.randn(n, c, 20, dtype=torch.float64)
    return X @ X.mT / 20


def matrices(vectors, c):
    """The symmetric matrices of their upper triangles."""
    rows, columns = torch.triu_indices(c, c)
    S = torch.zeros(len(vectors), c, c, dtype=vectors.dtype)
    S[:, rows, columns] = S[:, columns, rows] = vectors
    return S


def orthonormal_features(c=4):
    """Features of mean 0 whose covariance is the identity: columns of a Hadamard matrix."""
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    hadamard = torch.kron(torch.kron(signs, signs), signs).double()
    return hadamard[:, 1 : c + 1].T.reshape(1, c, 2, 4)


@pytest.mark.parametrize("method", EXACT)
def test_the_square_is_the_covariance_of_each_image(method):
    features = make_features()
    roots = matrices(pool(method=method)(features), 4)
    for one, root in zip(features, roots, strict=True):
        expected = torch.cov(one.flatten(1), correction=0)
        assert torch.allclose(root @ root, expected, atol=1e-8)
        assert torch.linalg.eigvalsh(root).min() >= 0


@pytest.mark.parametrize("method", EXACT)
def test_orthonormal_features_give_the_identity(method):
    root = pool(method=method)(orthonormal_features())
    assert torch.allclose(matrices(root, 4)[0], torch.eye(4).double(), atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_equal_eigenvalues_have_a_finite_gradient(method):
    features = orthonormal_features().requires_grad_()
    pool(method=method)(features).square().sum().backward()
    assert features.grad.isfinite().all()
    assert features.grad.abs().max() > 0.01


def test_a_rotation_of_the_channels_rotates_the_root():
    features = make_features()
    Q = torch.linalg.qr(torch.randn(4, 4).double()).Q
    turned = torch.einsum("dc,nchw->ndhw", Q, features)
    roots, others = (matrices(pool()(x), 4) for x in (features, turned))
    assert torch.allclose(others, Q @ roots @ Q.T)


def test_the_order_of_positions_and_the_mean_do_not_count():
    features = make_features()
    expected = pool()(features)
    assert torch.allclose(pool()(features + 7), expected)
    assert torch.allclose(pool()(features.flip(2).mT), expected)


def test_eps_is_added_to_the_variance():
    constant = torch.full((1, 2, 3, 3), 5.0)
    assert torch.allclose(pool(eps=4.0)(constant), torch.tensor([[2.0, 0.0, 2.0]]))


@pytest.mark.parametrize("method", ["eigh", "newton_schulz", "isqrt_cov"])
def test_gradients_against_finite_differences(method):
    features = make_features(2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(pool(method=method), (features,))


def test_fewer_positions_than_channels():
    features = torch.randn(2, 10, 2, 2, requires_grad=True)
    root = pool()(features)
    root.square().sum().backward()
    assert torch.linalg.matrix_rank(matrices(root.detach(), 10), rtol=1e-3).tolist() == [3, 3]
    assert features.grad.isfinite().all()


def test_the_root_of_the_recipes_is_exact_without_eps():
    """With 196 positions, 256 channels and some that never fire, as at 224 pixels."""
    features, G = torch.randn(1, 256, 14, 14).relu(), torch.randn(1, 32_896)
    features[:, :5] = 0
    results = []
    for method, dtype in (("svd_pade", torch.float32), ("eigh", torch.float64)):
        leaf = features.to(dtype, copy=True).requires_grad_()
        root = pool(method=method)(leaf)
        (gradient,) = torch.autograd.grad(root, leaf, G.to(dtype))
        results.append((root.double(), gradient.double()))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)
    assert results[0][1].norm() > 1


def test_eps_makes_methods_agree_where_the_covariance_is_singular():
    features, G = torch.randn(2, 10, 2, 2), torch.randn(2, 55)
    results = []
    for method in ("eigh", "newton_schulz"):
        leaf = features.clone().requires_grad_()
        root = CovarianceRoot(method=method)(leaf)
        results.append((root, torch.autograd.grad(root, leaf, G)[0]))
    torch.testing.assert_close(*results, rtol=1e-2, atol=1e-3)


def test_isqrt_cov_is_the_iteration_of_the_paper():
    """As its code writes it, with the first and the last step apart."""
    A = make_covariances()
    eye3 = 3 * torch.eye(4).double()
    trace = torch.einsum("nii->n", A)[:, None, None]
    B = A / trace
    ZY = 0.5 * (eye3 - B)
    Y, Z = B @ ZY, ZY
    for _ in range(3):
        ZY = 0.5 * (eye3 - Z @ Y)
        Y, Z = Y @ ZY, ZY @ Z
    expected = 0.5 * Y @ (eye3 - Z @ Y) * trace.sqrt()
    torch.testing.assert_close(isqrt_cov(A), expected)


def test_isqrt_cov_tends_to_the_square_root():
    A = make_covariances()
    torch.testing.assert_close(isqrt_cov(A, iterations=40), matrix_sqrt(A))


def test_isqrt_cov_errs_as_its_docstring_says():
    A = torch.tensor([0.01, 0.07, 0.92], dtype=torch.float64)
    errors = 1 - isqrt_cov(A.diag()).diagonal() / A.sqrt()
    assert errors[0].item() == pytest.approx(0.34, abs=0.005)
    assert errors[1].item() == pytest.approx(0.012, abs=0.001)


def test_isqrt_cov_of_nothing_is_nothing():
    A = torch.zeros(1, 3, 3, requires_grad=True)
    root = isqrt_cov(A)
    assert torch.equal(root, torch.zeros(1, 3, 3))
    root.sum().backward()
    assert A.grad.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_the_layer_reduces_then_pools(method):
    pooling = GlobalCovariancePooling(6, reduced_channels=3, method=method).double()
    features = make_features(4, 6)
    vectors = pooling(features)
    assert vectors.shape == (4, 6) == (4, pooling.out_features)
    reduced = pooling.reduction(features)
    assert reduced.shape == (4, 3, 5, 5)
    assert reduced.min() == 0
    assert torch.allclose(vectors, CovarianceRoot(method=method)(reduced))
    vectors.sum().backward()
    assert all(p.grad.abs().max() > 0 for p in pooling.parameters())


def test_widths_of_the_paper():
    with torch.device("meta"):
        pooling = GlobalCovariancePooling(2048)
    assert pooling.reduction[0].weight.shape == (256, 2048, 1, 1)
    assert pooling.out_features == 32_896


def test_half_precision():
    features = make_features().float()
    expected = pool()(features)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(pool()(features), expected, atol=1e-6)
    rounded = pool()(features.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), expected, atol=0.02)


@pytest.mark.skipif(
    torch.__version__.startswith("2.8."), reason="PyTorch 2.8 loses what is made in a context"
)
@pytest.mark.parametrize("method", ["eigh", "isqrt_cov"])
def test_exported_for_any_batch(method):
    pooling = GlobalCovariancePooling(6, reduced_channels=3, method=method).double().eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(pooling, (make_features(2, 6),), dynamic_shapes=({0: batch},))
    features = make_features(5, 6)
    torch.testing.assert_close(program.module()(features), pooling(features))


def test_bad_input():
    with pytest.raises(ValueError, match=r"at least 2 positions, got \(2, 3, 1, 1\)"):
        pool()(torch.zeros(2, 3, 1, 1))
    with pytest.raises(ValueError, match=r"\(N, C, H, W\) .* got \(2, 3, 5\)"):
        pool()(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="eps must not be negative, got -1"):
        pool(eps=-1)
    with pytest.raises(ValueError, match=r"one of auto, .*, isqrt_cov, got 'svd'"):
        GlobalCovariancePooling(4, method="svd")
    with pytest.raises(ValueError, match="reduced_channels must be at least 1, got 0"):
        GlobalCovariancePooling(4, reduced_channels=0)
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        GlobalCovariancePooling(0)
    with pytest.raises(
        ValueError, match="one of free, orthogonal, orthonormal_kernel, spectral, got 'unitary'"
    ):
        GlobalCovariancePooling(4, weight="unitary")
