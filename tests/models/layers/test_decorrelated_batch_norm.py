import pytest
import torch
from torch import nn
from torch.nn import functional

from disentangle.linalg import matrix_inverse_sqrt
from disentangle.models.layers import DecorrelatedBatchNorm2d, Whitening

EXACT = ("eigh", "svd_pade", "svd_taylor", "newton_schulz")


def make_maps(n=8, c=6, size=5, dtype=torch.float64):
    mixing, maps = torch.randn(c, c, dtype=dtype), torch.randn(n, c, size, size, dtype=dtype)
    mixed = torch.einsum("dc,nchw->ndhw", mixing, maps)
    return mixed + torch.arange(c, dtype=dtype)[:, None, None]


def as_samples(maps):
    return maps.movedim(1, -1).flatten(end_dim=-2)  # (N, C, H, W) -> (NHW, C)


def covariance(maps):
    return torch.cov(as_samples(maps).T, correction=0)


def make_layer(c=6, **options):
    return DecorrelatedBatchNorm2d(c, **options).double()


@pytest.mark.parametrize("axes", ["zca", "pca"])
@pytest.mark.parametrize("method", ["auto", *EXACT])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_each_group_gets_the_identity_as_covariance(axes, method, groups):
    white = make_layer(eps=1e-10, axes=axes, method=method, groups=groups)(make_maps())
    assert torch.allclose(white.mean((0, 2, 3)), torch.zeros(6).double(), atol=1e-9)
    for part in white.chunk(groups, dim=1):
        assert torch.allclose(covariance(part), torch.eye(6 // groups).double(), atol=1e-6)


def test_the_first_forward_is_what_the_paper_says():
    """The official code crashes there."""
    maps = make_maps()
    centred = maps - maps.mean((0, 2, 3), keepdim=True)
    sigma = torch.einsum("nchw,ndhw->cd", centred, centred) / (8 * 5 * 5)
    lambdas, U = torch.linalg.eigh(sigma + 1e-2 * torch.eye(6).double())
    root = U @ lambdas.rsqrt().diag() @ U.T
    expected = torch.einsum("dc,nchw->ndhw", root, centred)
    torch.testing.assert_close(make_layer()(maps), expected)


def test_pca_takes_the_largest_variance_first():
    maps = make_maps()
    white = as_samples(make_layer(axes="pca", eps=1e-10)(maps))
    samples = as_samples(maps)
    loadings = white.T @ (samples - samples.mean(0)) / len(samples)
    # A white principal component covaries with the channels by √λ times its axis.
    lambdas = torch.linalg.eigvalsh(covariance(maps)).flip(0)
    assert torch.allclose(loadings.norm(dim=1), lambdas.sqrt(), atol=1e-6)


def test_one_channel_per_group_is_batch_norm():
    maps = make_maps()
    layer, norm = make_layer(groups=6), nn.BatchNorm2d(6, eps=1e-2).double()
    with torch.no_grad():
        for module in (layer, norm):
            module.weight.copy_(torch.arange(1.0, 7))
            module.bias.copy_(torch.arange(6.0))
    results = []
    for module in (layer, norm):
        leaf = maps.clone().requires_grad_()
        y = module(leaf)
        gradients = torch.autograd.grad(y.pow(3).sum(), [leaf, module.weight, module.bias])
        results.append((y, *gradients))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("axes", ["zca", "pca"])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_against_finite_differences(axes, groups):
    layer = make_layer(4, axes=axes, groups=groups, momentum=0)
    nn.init.normal_(layer.weight)

    def normalise(maps, *_):
        return layer(maps)

    maps = make_maps(3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(normalise, (maps, layer.weight, layer.bias))


def test_methods_agree():
    maps = make_maps()
    results = []
    for method in EXACT:
        leaf = maps.clone().requires_grad_()
        y = make_layer(method=method)(leaf)
        results.append((y, torch.autograd.grad(y.pow(3).sum(), leaf)[0]))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-6)


def test_equal_eigenvalues():
    """The gradient of the eigenvectors is infinite there; that of the root is not."""
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    hadamard = torch.kron(torch.kron(signs, signs), signs).double()
    maps = (hadamard[:, 1:5].reshape(8, 4, 1, 1) * 2).requires_grad_()
    weight = torch.randn(8, 4, 1, 1).double()
    y = make_layer(4, momentum=0)(maps)
    assert torch.allclose(y, maps / 4.01**0.5)
    (gradient,) = torch.autograd.grad((weight * y).sum(), maps)
    assert gradient.abs().max() > 0.01
    layer = make_layer(4, momentum=0)
    assert torch.autograd.gradcheck(layer, (maps,))


def test_averages_have_the_momentum_of_batch_norm():
    """The official code reverses it and averages the mean into the variance."""
    layer, norm = make_layer(eps=1e-3), nn.BatchNorm2d(6).double()
    expected = torch.eye(6).double()
    for _ in range(3):
        maps = make_maps()
        layer(maps)
        norm(maps)
        root = matrix_inverse_sqrt(covariance(maps) + 1e-3 * torch.eye(6).double())
        expected = 0.9 * expected + 0.1 * root
    torch.testing.assert_close(layer.running_mean, norm.running_mean)
    torch.testing.assert_close(layer.running_whitening, expected)


@pytest.mark.parametrize("axes", ["zca", "pca"])
def test_evaluation_uses_the_averages_and_learns_nothing(axes):
    layer = make_layer(momentum=1, axes=axes, groups=2)
    maps = make_maps()
    white = layer(maps)
    layer.eval()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    assert state.keys() == {"weight", "bias", "running_mean", "running_whitening"}
    torch.testing.assert_close(layer(maps), white)
    torch.testing.assert_close(layer(maps[:1]), white[:1])
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())


def test_without_averages_evaluation_uses_its_batch():
    layer = make_layer(track_running_stats=False)
    maps = make_maps()
    white = layer(maps)
    assert layer.state_dict().keys() == {"weight", "bias"}
    assert torch.equal(layer.eval()(maps), white)


def test_without_scale_and_shift():
    layer = make_layer(affine=False)
    assert list(layer.parameters()) == []
    maps = make_maps()
    assert torch.equal(layer(maps), make_layer()(maps))


def test_both_whitening_layers_have_one_core():
    samples = make_maps(size=1)
    codes = samples.flatten(1)
    expected = Whitening(dim=6, eps=1e-2).double()(codes)
    assert torch.allclose(make_layer()(samples).flatten(1), expected)


@pytest.mark.parametrize("n", [2, 5])
def test_fewer_samples_than_channels(n):
    maps = make_maps(n, 10, 1, torch.float32).requires_grad_()
    white = DecorrelatedBatchNorm2d(10, eps=1e-5)(maps)
    white.pow(3).sum().backward()
    assert maps.grad.isfinite().all()
    variances = torch.linalg.eigvalsh(covariance(white.detach()))
    assert torch.allclose(variances[: 11 - n], torch.zeros(11 - n), atol=1e-3)
    assert torch.allclose(variances[11 - n :], torch.ones(n - 1), atol=0.01)


def test_dependent_channels_as_after_a_first_convolution():
    """27 of 64 dimensions: the smallest eigenvalue is eps."""
    maps = functional.conv2d(torch.randn(4, 3, 8, 8), torch.randn(64, 3, 3, 3)).requires_grad_()
    white = DecorrelatedBatchNorm2d(64)(maps)
    white.pow(3).sum().backward()
    assert maps.grad.isfinite().all()
    variances = torch.linalg.eigvalsh(covariance(white.detach()))
    assert (variances > 0.5).sum() == 27
    assert variances.abs()[:37].max() < 1e-3


def test_half_precision():
    maps = make_maps(16, 4, 8, torch.float32)
    layer = DecorrelatedBatchNorm2d(4, eps=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        leaf = maps.clone().requires_grad_()
        white = layer(leaf)
        # Backward inside the context, too.
        white.pow(3).sum().backward()
    assert white.dtype == torch.float32
    assert torch.allclose(covariance(white.detach()), torch.eye(4), atol=1e-3)
    expected = maps.clone().requires_grad_()
    DecorrelatedBatchNorm2d(4, eps=1e-5)(expected).pow(3).sum().backward()
    assert torch.allclose(leaf.grad, expected.grad, atol=1e-4)
    assert layer(maps.bfloat16()).dtype == torch.bfloat16
    assert layer.running_whitening.dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_the_order_in_memory_is_kept_and_changes_nothing(training):
    layer = make_layer().train(training)
    maps = make_maps()
    ordered = maps.contiguous(memory_format=torch.channels_last)
    white, ordered_white = layer(maps), layer(ordered)
    assert white.is_contiguous()
    assert ordered_white.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ordered_white, white)


@pytest.mark.parametrize("axes", ["zca", "pca"])
def test_exported_for_any_batch(axes):
    layer = make_layer(axes=axes)
    layer(make_maps())
    layer.eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(layer, (make_maps(),), dynamic_shapes=({0: batch},))
    maps = make_maps(3)
    torch.testing.assert_close(program.module()(maps), layer(maps))


def test_bad_input():
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), got \(4, 2, 5, 5\)"):
        DecorrelatedBatchNorm2d(3)(torch.zeros(4, 2, 5, 5))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), got \(4, 3\)"):
        DecorrelatedBatchNorm2d(3)(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="at least 2 positions, got 1"):
        DecorrelatedBatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        DecorrelatedBatchNorm2d(0)
    with pytest.raises(ValueError, match="eps must be positive, got 0"):
        DecorrelatedBatchNorm2d(3, eps=0)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\], got 2"):
        DecorrelatedBatchNorm2d(3, momentum=2)
    with pytest.raises(ValueError, match="groups must divide the 3 channels, got 2"):
        DecorrelatedBatchNorm2d(3, groups=2)
    with pytest.raises(ValueError, match=r"method must be one of auto, eigh, .*, got 'svd'"):
        DecorrelatedBatchNorm2d(3, method="svd")
    with pytest.raises(ValueError, match="axes must be one of zca, pca, got 'ica'"):
        DecorrelatedBatchNorm2d(3, axes="ica")


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_what_follows_may_change_the_output_in_place(order):
    features = torch.randn(8, 4, 5, 5).to(memory_format=order).requires_grad_()
    layer = DecorrelatedBatchNorm2d(4)
    layer(features).relu_().square().sum().backward()
    gradient, features.grad = features.grad, None
    layer(features).relu().square().sum().backward()
    assert torch.equal(features.grad, gradient)


def test_other_initial_scales_are_refused():
    with pytest.raises(ValueError, match="initial_scale must be one of ones, uniform, got 'zeros'"):
        DecorrelatedBatchNorm2d(4, initial_scale="zeros")
