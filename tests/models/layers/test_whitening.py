import pytest
import torch

from disentangle.linalg import matrix_inverse_sqrt
from disentangle.models.layers.whitening import Whitening


def correlated(n, dim, dtype=torch.float64):
    """Codes whose covariance has a condition number of about 1e3, and their true covariance."""
    basis = torch.linalg.qr(torch.randn(dim, dim, dtype=dtype)).Q
    factor = torch.logspace(-1, 0.5, dim, dtype=dtype)[:, None] * basis
    return torch.randn(n, dim, dtype=dtype) @ factor + 3, factor.T @ factor


def covariance(x):
    centred = x - x.mean(0)
    return centred.T @ centred / len(x)


@pytest.mark.parametrize("dim", [1, 2, 10])
@pytest.mark.parametrize("method", ["auto", "newton_schulz"])
def test_a_batch_gets_the_identity_as_covariance(dim, method):
    codes, _ = correlated(64, dim)
    white = Whitening(dim=dim, eps=1e-12, method=method)(codes)
    assert torch.allclose(white.mean(0), torch.zeros(dim).double(), atol=1e-9)
    assert torch.allclose(covariance(white), torch.eye(dim).double(), atol=1e-6)


def test_it_turns_as_little_as_it_can():
    """Of all maps that whiten, the symmetric one leaves codes nearest to where they were."""
    codes, _ = correlated(64, 4)
    white = Whitening(dim=4, eps=1e-12)(codes)
    centred = codes - codes.mean(0)
    turned = white @ torch.linalg.qr(torch.randn(4, 4).double()).Q
    assert (white - centred).norm() < (turned - centred).norm()
    # The map is symmetric: it is the cross-covariance of whitened codes and codes, inverted.
    cross = white.T @ centred
    assert torch.allclose(cross, cross.T, atol=1e-8)


def test_eps_is_added_to_the_variance():
    codes = torch.tensor([[2.0], [-2.0]])
    assert torch.allclose(Whitening(dim=1, eps=12.0)(codes), codes / 4)


def test_gradient():
    codes, _ = correlated(6, 3)
    layer = Whitening(dim=3, eps=1e-3).double()
    assert torch.autograd.gradcheck(layer, (codes.requires_grad_(),))


def test_averages_are_those_of_batch_norm():
    layer, norm = Whitening(dim=4), torch.nn.BatchNorm1d(4, affine=False)
    expected = torch.eye(4)
    for _ in range(3):
        codes, _ = correlated(32, 4, torch.float32)
        layer(codes)
        norm(codes)
        root = matrix_inverse_sqrt(covariance(codes) + 1e-5 * torch.eye(4))
        expected = 0.9 * expected + 0.1 * root
    assert torch.allclose(layer.running_mean, norm.running_mean, atol=1e-6)
    assert torch.allclose(layer.running_whitening, expected, atol=1e-5)


def test_evaluation_approaches_the_whitening_of_the_population():
    codes, true = correlated(60_000, 5)
    layer = Whitening(dim=5).double()
    for batch in codes.split(200):
        layer(batch)
    layer.eval()
    root = matrix_inverse_sqrt(true)
    assert (layer.running_whitening - root).norm() < 0.05 * root.norm()
    assert torch.allclose(covariance(layer(codes)), torch.eye(5).double(), atol=0.1)


def test_evaluation_takes_each_code_by_itself_and_learns_nothing():
    codes, _ = correlated(16, 3, torch.float32)
    layer = Whitening(dim=3)
    layer(codes)
    layer.eval()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    assert state.keys() == {"running_mean", "running_whitening"}
    whole = layer(codes)
    assert torch.allclose(whole, torch.cat([layer(code[None]) for code in codes]), atol=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
    assert not torch.allclose(whole, layer.train()(codes), atol=0.1)


@pytest.mark.parametrize("n", [2, 5])
def test_a_batch_of_no_more_codes_than_dimensions(n):
    codes, _ = correlated(n, 10, torch.float32)
    codes.requires_grad_()
    white = Whitening(dim=10)(codes)
    white.pow(3).sum().backward()
    assert white.isfinite().all()
    assert codes.grad.isfinite().all()
    variances = torch.linalg.eigvalsh(covariance(white.detach()))
    assert torch.allclose(variances[: 11 - n], torch.zeros(11 - n), atol=1e-4)
    assert torch.allclose(variances[11 - n :], torch.ones(n - 1), atol=0.01)


def test_equal_codes_are_finite():
    codes = torch.full((8, 3), 7.0, requires_grad=True)
    white = Whitening(dim=3)(codes)
    white.square().sum().backward()
    assert torch.equal(white.detach(), torch.zeros(8, 3))
    assert codes.grad.isfinite().all()


def test_half_precision():
    codes, _ = correlated(64, 4, torch.float32)
    layer = Whitening(dim=4)
    with torch.autocast("cpu", torch.bfloat16):
        white = layer(codes)
        assert torch.allclose(covariance(white.double()).float(), torch.eye(4), atol=0.01)
        assert layer(codes.bfloat16()).dtype == torch.bfloat16
    assert layer.running_whitening.dtype == torch.float32


def test_bad_input():
    with pytest.raises(ValueError, match=r"\(N, 3\), got \(4, 2\)"):
        Whitening(dim=3)(torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"\(N, 3\), got \(2, 4, 3\)"):
        Whitening(dim=3)(torch.zeros(2, 4, 3))
    with pytest.raises(ValueError, match="at least 2 codes, got 1"):
        Whitening(dim=3)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        Whitening(dim=0)
    with pytest.raises(ValueError, match="eps must be positive, got 0"):
        Whitening(dim=3, eps=0)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\], got 2"):
        Whitening(dim=3, momentum=2)
