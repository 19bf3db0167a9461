import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from disentangle.orthogonality import SkewOrthogonalConv2d, attach, resolve_parameters
from disentangle.orthogonality.skew_orthogonal_convolution import (
    convolution_exponential,
    filter_unfoldings,
    skew_filter,
)

few = settings(max_examples=15, deadline=None, derandomize=True)
SHAPES = [(3, 3, 1), (4, 9, 1), (2, 5, 2), (16, 4, 2), (1, 3, 1)]  # channels in and out, stride


def make_layer(cin, cout, kernel_size, **options):
    layer = SkewOrthogonalConv2d(cin, cout, kernel_size, bias=False, **options)
    return layer.double()


def dense(linear_map, channels, size):
    """The matrix of a linear map of images `(1, channels, *size)`."""
    n = channels * math.prod(size)
    inputs = torch.eye(n, dtype=torch.float64).view(n, channels, *size)
    return linear_map(inputs).flatten(1).T.detach()


def convolution(A):
    return lambda x: functional.conv2d(x, A, padding=(A.shape[2] // 2, A.shape[3] // 2))


def circular_norm(A, size=24):
    """The norm of the convolution with a periodic image of `size`, from its Fourier transform."""
    symbols = torch.fft.fft2(A, s=(size, size)).permute(2, 3, 0, 1)
    return torch.linalg.matrix_norm(symbols, ord=2).max().item()


def all_unfoldings(A):
    return (
        A.permute(0, 2, 1, 3).reshape(len(A) * A.shape[2], -1),
        A.permute(0, 3, 1, 2).reshape(len(A) * A.shape[3], -1),
        A.reshape(len(A), -1),
        A.permute(0, 2, 3, 1).reshape(-1, A.shape[1]),
    )


def norm(matrix):
    return torch.linalg.matrix_norm(matrix, ord=2).item()


def flat_filter(channels, k):
    """The worst case of the published normalisation: a skew-symmetric matrix at every tap."""
    S = skew_filter(torch.randn(channels, channels, 1, 1, dtype=torch.float64))
    return S.expand(-1, -1, k, k).contiguous()


def assign(layer, weight):
    with torch.no_grad():
        layer.weight.copy_(weight)
    layer.fit()
    return layer


# The filter


@few
@given(st.integers(1, 4), st.sampled_from([1, 3, 5]), st.integers(0, 2**31))
def test_the_map_of_the_filter_is_skew_symmetric(channels, k, seed):
    torch.manual_seed(seed)
    A = skew_filter(torch.randn(channels, channels, k, k, dtype=torch.float64))
    J = dense(convolution(A), channels, (4, 6))
    assert torch.equal(J.T, -J)
    assert torch.equal(skew_filter(A), A)


@few
@given(st.integers(1, 4), st.sampled_from([(1, 1), (3, 3), (3, 5)]), st.integers(0, 2**31))
def test_two_of_the_four_unfoldings_say_it_all(channels, kernel, seed):
    torch.manual_seed(seed)
    A = skew_filter(torch.randn(channels, channels, *kernel, dtype=torch.float64))
    sigmas = [norm(M) for M in all_unfoldings(A)]
    first, third = map(norm, filter_unfoldings(A))
    assert sigmas == pytest.approx([first, first, third, third])
    bound = math.sqrt(math.prod(kernel)) * min(sigmas)
    assert circular_norm(A) <= bound * (1 + 1e-9)
    assert norm(dense(convolution(A), channels, (4, 5))) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("terms", [1, 3, 5, 12])
def test_the_series_ends_within_its_bound_of_the_matrix_exponential(terms):
    A = skew_filter(torch.randn(3, 3, 3, 3, dtype=torch.float64)) / 4
    J = dense(convolution(A), 3, (5, 4))
    approximation = dense(lambda x: convolution_exponential(x, A, terms), 3, (5, 4))
    error = norm(approximation - torch.linalg.matrix_exp(J))
    bound = norm(J) ** (terms + 1) / math.factorial(terms + 1)
    assert bound / 50 < error <= bound + 1e-13


# The layer


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize(("cin", "cout", "stride"), SHAPES)
@pytest.mark.parametrize("normalisation", ["strict", "published"])
def test_singular_values_are_one_up_to_the_truncation(cin, cout, stride, k, normalisation):
    layer = make_layer(cin, cout, k, stride=stride, normalisation=normalisation)
    theta = circular_norm(layer.normalised_filter().detach())
    for terms, training in [(5, True), (12, False)]:
        J = dense(layer.train(training), cin, (4, 6))
        assert J.shape == (cout * 24 // stride**2, cin * 24)
        # Zeros for channels and dropped ones cut columns and rows off the exponential.
        off = (torch.linalg.svdvals(J) - 1).abs().max()
        reach = 1.0 if normalisation == "strict" else theta
        assert off <= (reach * 1.01) ** (terms + 1) / math.factorial(terms + 1) + 1e-12


@pytest.mark.parametrize("k", [1, 3, 5])
def test_evaluation_is_the_matrix_exponential(k):
    layer = make_layer(4, 4, k, normalisation="strict").eval()
    J = dense(convolution(layer.normalised_filter()), 4, (5, 5))
    expected = torch.linalg.matrix_exp(J)
    assert norm(dense(layer, 4, (5, 5)) - expected) <= 1 / math.factorial(11)


@few
@given(st.sampled_from(SHAPES), st.sampled_from([1, 3]), st.integers(0, 2**31))
def test_norms_are_kept_unless_channels_are_dropped(shape, k, seed):
    torch.manual_seed(seed)
    cin, cout, stride = shape
    layer = make_layer(cin, cout, k, stride=stride, normalisation="strict").eval()
    images = torch.randn(3, cin, 8, 8, dtype=torch.float64)
    before, after = images.flatten(1).norm(dim=1), layer(images).flatten(1).norm(dim=1)
    if cout >= cin * stride**2:
        torch.testing.assert_close(after, before, rtol=1e-7, atol=0)
    else:
        assert (after < before).all()


def test_stride_two_rearranges_the_image():
    layer = make_layer(2, 8, 3, stride=2).eval()
    images = torch.randn(1, 2, 4, 6, dtype=torch.float64)
    # (1, 2, 4, 6) -> (1, 2, H, 2, W, 2) -> (1, 2, 2, 2, H, W) -> (1, 8, 2, 3)
    rearranged = images.view(1, 2, 2, 2, 3, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 8, 2, 3)
    expected = convolution_exponential(rearranged, layer.normalised_filter(), 10)
    torch.testing.assert_close(layer(images), expected)


def test_the_bias_comes_on_top():
    layer = SkewOrthogonalConv2d(3, 5, 3).eval()
    images = torch.zeros(2, 3, 4, 4)
    torch.testing.assert_close(layer(images), layer.bias[:, None, None].expand(2, 5, 4, 4))


# The normalisation


@pytest.mark.parametrize("k", [1, 3, 5])
def test_strict_is_a_bound_and_published_is_one_for_k_1_only(k):
    filters = [flat_filter(4, k), skew_filter(torch.randn(4, 4, k, k, dtype=torch.float64))]
    for A in filters:
        strict = assign(make_layer(4, 4, k, normalisation="strict"), A).eval()
        assert circular_norm(strict.normalised_filter()) <= 1 + 1e-9
        published = assign(make_layer(4, 4, k), A).eval()
        sigma = min(norm(M) for M in all_unfoldings(published.normalised_filter()))
        assert sigma == pytest.approx(1.0 if k == 1 else 0.7)
    worst = circular_norm(assign(make_layer(4, 4, k), filters[0]).normalised_filter(), size=15)
    assert worst == pytest.approx(1.0 if k == 1 else 0.7 * k)


@pytest.mark.parametrize(("k", "low", "high"), [(3, 1.2, 1.6), (5, 1.5, 2.1)])
def test_what_published_makes_of_random_filters(k, low, high):
    for channels in (3, 8, 64):
        layer = SkewOrthogonalConv2d(channels, channels, k).double()
        assert low < circular_norm(layer.normalised_filter().detach()) < high


def test_the_scale_of_the_filter_has_no_effect():
    layer = make_layer(3, 3, 3).eval()
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    before = layer(images)
    torch.testing.assert_close(assign(layer, 1e-5 * layer.weight)(images), before)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_filter_of_zero_is_the_identity_with_a_finite_gradient(channels):
    layer = make_layer(channels, channels, 1)
    assign(layer, torch.zeros_like(layer.weight))
    images = 1e3 * torch.randn(2, channels, 3, 3, dtype=torch.float64)
    assert torch.equal(layer(images), images)
    layer(images).square().sum().backward()
    assert layer.weight.grad.isfinite().all()


# The power iteration


def true_sigmas(layer):
    return [norm(M) for M in filter_unfoldings(skew_filter(layer.weight.detach().double()))]


def tracked_sigmas(layer):
    unfoldings = filter_unfoldings(skew_filter(layer.weight.detach()))
    with torch.no_grad():
        return [layer.sigma1(unfoldings[0]).item(), layer.sigma3(unfoldings[1]).item()]


@pytest.mark.parametrize("k", [1, 3])
def test_it_is_converged_at_the_start_and_after_a_reset(k):
    layer = SkewOrthogonalConv2d(24, 16, k)
    assert tracked_sigmas(layer) == pytest.approx(true_sigmas(layer), rel=1e-6)
    before = layer.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight, before)
    assert tracked_sigmas(layer) == pytest.approx(true_sigmas(layer), rel=1e-6)


def test_it_follows_the_filter_in_training():
    layer = SkewOrthogonalConv2d(8, 8, 3)
    stale = SkewOrthogonalConv2d(8, 8, 3)
    stale.load_state_dict(layer.state_dict())
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-3)
    images, target = torch.randn(4, 8, 6, 6), torch.randn(4, 8, 6, 6)
    for _ in range(200):
        optimizer.zero_grad()
        (layer(images) - target).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        stale.weight.copy_(layer.weight)
    # The lag that the docstring states, and that of vectors which are not moved.
    assert min(tracked_sigmas(layer)) > 0.75 * min(true_sigmas(layer))
    assert min(tracked_sigmas(stale)) < 0.75 * min(true_sigmas(layer))
    for _ in range(300):
        layer(images)
    assert tracked_sigmas(layer) == pytest.approx(true_sigmas(layer), rel=1e-4)


def test_only_a_pass_that_trains_moves_it():
    layer = SkewOrthogonalConv2d(6, 6, 3)
    with torch.no_grad():
        layer.weight.add_(torch.randn_like(layer.weight))
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    images = torch.randn(1, 6, 4, 4)
    layer.eval()(images)
    with torch.no_grad():
        layer.train()(images)
    for name, buffer in layer.named_buffers():
        assert torch.equal(buffer, before[name])
    layer(images)
    for name, buffer in layer.named_buffers():
        assert not torch.equal(buffer, before[name])


def test_state_dict_round_trip_is_bitwise_equal_in_evaluation():
    layer = SkewOrthogonalConv2d(3, 8, 3, stride=2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    images = torch.randn(2, 3, 6, 6)
    for _ in range(3):
        layer(images).sum().backward()
        optimizer.step()
    twin = SkewOrthogonalConv2d(3, 8, 3, stride=2)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin.eval()(images), layer.eval()(images))


def test_two_passes_before_one_backward():
    layer = SkewOrthogonalConv2d(3, 3, 3)
    images = torch.randn(1, 3, 4, 4)
    (layer(images) + layer(images)).sum().backward()
    assert layer.weight.grad.any()


# Training


def test_the_gradient_passes_gradcheck_and_is_tangent():
    layer = make_layer(3, 2, 3).eval()
    images = torch.randn(1, 3, 3, 4, dtype=torch.float64)
    names = ["weight"]

    def run(weight):
        return torch.func.functional_call(layer, dict(zip(names, [weight], strict=True)), images)

    weight = layer.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(run, [weight])
    run(weight).square().sum().backward()
    cosine = functional.cosine_similarity(weight.grad.flatten(), weight.detach().flatten(), dim=0)
    assert abs(cosine) < 1e-12


@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nog", "olr"]])
def test_techniques_act_on_the_filter(techniques):
    layer = SkewOrthogonalConv2d(3, 5, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, fused=True)
    attach(optimizer, resolve_parameters(layer, ["weight"]), techniques)
    images, before = torch.randn(2, 3, 6, 6), layer.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        layer(images).sin().sum().backward()
        optimizer.step()
    assert layer.weight.isfinite().all()
    assert not torch.equal(layer.weight, before)
    sigmas = torch.linalg.svdvals(layer.weight.grad.flatten(1))
    assert torch.allclose(sigmas, torch.ones(5), atol=1e-5) == ("nog" in techniques)


def test_training_does_not_wait_for_the_host(count_scalars):
    layer = SkewOrthogonalConv2d(4, 4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, fused=True)
    with count_scalars() as counter:
        layer(torch.randn(2, 4, 5, 5)).square().sum().backward()
        optimizer.step()
    assert counter.calls == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    layer = SkewOrthogonalConv2d(4, 4, 3).to(dtype)
    images = torch.randn(2, 4, 6, 6, dtype=dtype)
    output = layer(images)
    assert output.dtype == dtype
    output.sum().backward()
    assert layer.weight.grad.dtype == dtype


def test_autocast_keeps_the_filter():
    layer = SkewOrthogonalConv2d(4, 4, 3).eval()
    exact = layer.normalised_filter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.normalised_filter(), exact)
        assert layer(torch.randn(1, 4, 5, 5)).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((3, 4, 2), {}, "kernel_size must be odd.* got 2"),
        ((3, 4, 0), {}, "kernel_size must be odd.* got 0"),
        ((3, 4, 3), {"stride": 3}, "stride must be 1 or 2.* got 3"),
        ((0, 4, 3), {}, "at least 1, got 0 and 4"),
        ((3, 4, 3), {"normalisation": "loose"}, "one of published, strict, got 'loose'"),
        ((3, 4, 3), {"eval_terms": 0}, "at least 1, got 5 and 0"),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        SkewOrthogonalConv2d(*arguments, **options)


def test_bad_images():
    layer = SkewOrthogonalConv2d(3, 4, 3, stride=2)
    with pytest.raises(ValueError, match=r"shape \(N, 3, H, W\), got \(2, 4, 8, 8\)"):
        layer(torch.zeros(2, 4, 8, 8))
    with pytest.raises(ValueError, match=r"multiples of 2, got \(2, 3, 8, 7\)"):
        layer(torch.zeros(2, 3, 8, 7))
    assert isinstance(layer, nn.Module)
