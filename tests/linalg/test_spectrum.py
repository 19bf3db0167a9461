import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disentangle.linalg import condition_number, effective_rank, polar_factor
from disentangle.linalg.spectrum import covariance_spectrum, feature_spectrum, gram_spectrum

few = settings(max_examples=30, deadline=None, derandomize=True)
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def make_covariance(eigenvalues, dtype=torch.float64):
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0]
    return (Q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ Q.T).to(dtype)


@few
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_condition_number_of_known_eigenvalues(eigenvalues):
    expected = max(eigenvalues) / min(eigenvalues)
    assert condition_number(make_covariance(eigenvalues)).item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_singular_covariance_is_infinitely_ill_conditioned(dtype):
    X = torch.randn(64, 27, dtype=torch.float64)
    assert condition_number((X @ X.T).to(dtype)).item() == torch.inf
    assert condition_number(torch.zeros(3, 3, dtype=dtype)).item() == torch.inf


def test_roundoff_does_not_hide_a_small_eigenvalue():
    assert condition_number(make_covariance([1.0, 1e-12])).item() == pytest.approx(1e12, rel=1e-2)
    single = make_covariance([1.0, 0.5, 1e-5], torch.float32)
    assert condition_number(single).item() == pytest.approx(1e5, rel=2e-2)
    assert condition_number(torch.diag(torch.tensor([6e4, 0.1]).half())).item() > 65504


def test_diagnostics_are_batched():
    covariances = torch.stack([torch.eye(3), torch.diag(torch.tensor([4.0, 1.0, 2.0]))])
    covariances = torch.stack([covariances, torch.full((2, 3, 3), torch.nan)])
    numbers, ranks = condition_number(covariances), effective_rank(covariances)
    assert numbers.shape == ranks.shape == (2, 2)
    assert numbers.dtype == ranks.dtype == torch.float64
    assert numbers[0].tolist() == pytest.approx([1.0, 4.0])
    assert numbers[1].isnan().all()
    assert ranks[1].isnan().all()


@few
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_effective_rank_lies_between_one_and_n(eigenvalues):
    covariance = make_covariance(eigenvalues)
    rank = effective_rank(covariance).item()
    assert 1 - 1e-9 <= rank <= len(eigenvalues) + 1e-9
    assert effective_rank(17 * covariance).item() == pytest.approx(rank)


def test_effective_rank_of_known_spectra():
    projection = make_covariance([1.0, 1.0, 1.0, 0.0, 0.0])
    assert effective_rank(projection).item() == pytest.approx(3)
    assert effective_rank(torch.zeros(3, 3)).item() == 0
    # Entropy of (¾, ¼).
    entropy = 0.75 * torch.log(torch.tensor(4 / 3)) + 0.25 * torch.log(torch.tensor(4.0))
    known = effective_rank(torch.diag(torch.tensor([3.0, 1.0]))).item()
    assert known == pytest.approx(entropy.exp().item())


@pytest.mark.parametrize("function", [condition_number, effective_rank])
def test_diagnostics_say_what_they_expect(function):
    with pytest.raises(ValueError, match=r"square.*got shape \(2, 3\)"):
        function(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"not empty.*got shape \(0, 0\)"):
        function(torch.ones(0, 0))
    with pytest.raises(ValueError, match=r"at least 2 dimensions"):
        function(torch.ones(2))
    with pytest.raises(ValueError, match=r"floating point, got torch.int32"):
        function(torch.ones(2, 2, dtype=torch.int32))


@few
@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 99))
def test_a_gram_spectrum_is_that_of_the_squared_singular_values(m, n, seed):
    matrix = draw(m, n, seed=seed, dtype=torch.float32)
    sigmas = torch.linalg.svdvals(matrix.double())
    for A in (matrix, matrix.mT, torch.stack([matrix, 2 * matrix])[0]):
        eigenvalues = gram_spectrum(A).eigenvalues
        assert eigenvalues.dtype == torch.float64
        torch.testing.assert_close(eigenvalues.flip(-1), sigmas.square(), atol=1e-10, rtol=1e-9)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(6, 8192), (64, 576), (300, 6)])
def test_zero_is_where_the_polar_factor_has_it(shape, dtype):
    rank = 3
    matrix = (draw(shape[0], rank) @ draw(rank, shape[1], seed=1)).to(dtype)
    spectrum = gram_spectrum(matrix)
    assert (spectrum.eigenvalues > spectrum.zero).sum() == rank
    assert spectrum.condition_number() == torch.inf
    assert 1 < spectrum.nonnull_condition_number() < 10
    kept = polar_factor(matrix).double().square().sum()
    assert kept.item() == pytest.approx(rank, abs=0.05)


def test_the_nonnull_spectrum_has_no_zeros():
    covariance = torch.diag(torch.tensor([0.0, 8.0, 0.0, 2.0]))
    spectrum = covariance_spectrum(covariance)
    assert spectrum.condition_number().item() == torch.inf
    assert spectrum.nonnull_condition_number().item() == 4
    assert spectrum.condition_number(eps=2.0).item() == 5
    # Without zeros, it is the condition number.
    full = covariance_spectrum(covariance + 2 * torch.eye(4))
    assert full.nonnull_condition_number().item() == full.condition_number().item() == 5


def test_nothing_counts_as_zero_with_eps_on_the_diagonal():
    spectrum = covariance_spectrum(torch.diag(torch.tensor([1.0, 0.0])))
    assert spectrum.condition_number().item() == torch.inf
    for eps in (1e-3, 1e-9):
        assert spectrum.condition_number(eps=eps).item() == pytest.approx(1 + 1 / eps)


def test_no_eigenvalue_and_no_number():
    zero = covariance_spectrum(torch.zeros(2, 3, 3))
    assert zero.condition_number().tolist() == [math.inf] * 2
    assert zero.nonnull_condition_number().isnan().all()
    assert zero.effective_rank().tolist() == [0, 0]
    covariances = torch.stack([torch.eye(2), torch.full((2, 2), torch.nan)])
    spectrum = covariance_spectrum(covariances)
    for measure in (
        spectrum.condition_number(),
        spectrum.nonnull_condition_number(),
        spectrum.effective_rank(),
    ):
        assert measure[0].item() == pytest.approx(measure[0].round().item())
        assert measure[1].isnan()
    for function in (gram_spectrum, feature_spectrum):
        assert function(torch.tensor([[1.0, 2.0], [3.0, torch.inf]])).eigenvalues.isnan().all()


@few
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 99), st.sampled_from([0.0, 1e3]))
def test_a_feature_spectrum_is_that_of_their_covariance(samples, channels, seed, mean):
    features = mean + draw(samples, channels, seed=seed)
    expected = torch.linalg.eigvalsh(features.mT.cov(correction=0).reshape(channels, channels))
    actual = feature_spectrum(features).eigenvalues
    assert actual.shape == (channels,)
    torch.testing.assert_close(actual, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("shape", [(40, 5), (5, 40)])
def test_feature_spectra_are_batched(shape):
    features = draw(3, *shape, dtype=torch.float32)
    spectrum = feature_spectrum(features)
    assert spectrum.eigenvalues.shape == (3, shape[1])
    for i, one in enumerate(features):
        alone = feature_spectrum(one)
        torch.testing.assert_close(spectrum.eigenvalues[i], alone.eigenvalues)
        torch.testing.assert_close(spectrum.zero[i], alone.zero)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dependent_features_have_the_rank_of_what_they_depend_on(dtype):
    # As the output of a 3 × 3 convolution of colour images: 27 of 64 channels are independent.
    features = (draw(4000, 27) @ draw(27, 64, seed=1) / 8 + 2).to(dtype)
    spectrum = feature_spectrum(features)
    assert (spectrum.eigenvalues > spectrum.zero).sum() == 27
    assert spectrum.condition_number() == torch.inf
    largest = spectrum.eigenvalues[-1].item()
    expected = (largest + 0.01) / (spectrum.eigenvalues[0].clamp(min=0).item() + 0.01)
    assert spectrum.condition_number(eps=0.01).item() == pytest.approx(expected)


def test_a_constant_feature_has_no_variance_however_large_it_is():
    features = torch.full((1000, 2), 1e4)
    features[:, 1] = torch.linspace(-1, 1, 1000)
    spectrum = feature_spectrum(features)
    assert spectrum.condition_number() == torch.inf
    assert spectrum.eigenvalues[-1].item() == pytest.approx(1 / 3, rel=1e-2)


def test_the_spectra_say_what_they_expect():
    with pytest.raises(ValueError, match=r"matrix must not be empty, got shape \(0, 3\)"):
        gram_spectrum(torch.empty(0, 3))
    with pytest.raises(ValueError, match=r"features must not be empty, got shape \(3, 0\)"):
        feature_spectrum(torch.empty(3, 0))
    with pytest.raises(ValueError, match=r"features must have at least 2 dimensions"):
        feature_spectrum(torch.ones(3))
    with pytest.raises(ValueError, match=r"matrix must be floating point, got torch.int64"):
        gram_spectrum(torch.ones(3, 3, dtype=torch.int64))


def test_the_functions_are_measures_of_the_spectrum():
    covariance = draw(9, 4).mT.cov()
    spectrum = covariance_spectrum(covariance)
    assert condition_number(covariance) == spectrum.condition_number()
    assert effective_rank(covariance) == spectrum.effective_rank()
