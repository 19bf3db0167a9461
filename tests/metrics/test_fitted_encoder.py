import numpy as np
import pytest
import torch

from disentangle.metrics.fitted_encoder import ConvolutionalEncoder, fit_encoder
from disentangle.metrics.mig import mig

QUICK = {"steps": 150, "channels": 8, "held_out": 300}


def sample_latents(n, generator):
    """Uniform, of unit variance, so that images keep to their range."""
    return 3**0.5 * (2 * torch.rand(n, 3, generator=generator) - 1)


@pytest.fixture
def basis():
    """Images of the three latents of a linear generator, 8 × 8 pixels in two channels."""
    return torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(5)).sign() / 6


def linear(basis):
    return lambda z: torch.einsum("nd,dchw->nchw", z, basis)


def test_a_linear_generator_is_inverted(basis):
    encoder = fit_encoder(linear(basis), sample_latents, **QUICK)
    assert encoder.r_squared.shape == (3,)
    assert (encoder.r_squared > 0.99).all()
    assert encoder.score == pytest.approx(encoder.r_squared.mean())
    z = sample_latents(700, torch.Generator().manual_seed(9))
    codes = encoder.encode(linear(basis)(z))
    assert codes.shape == z.shape
    assert not codes.requires_grad
    error = (codes - z).square().mean(dim=0) / z.var(dim=0)
    np.testing.assert_allclose(1 - error, encoder.r_squared, atol=0.01)


def test_many_latents_of_an_image_cannot_be_told_apart(basis):
    def fold(z):  # the sign of the first latent is lost, and all of the second
        return linear(basis)(torch.stack([z[:, 0].abs(), 0 * z[:, 1], z[:, 2]], dim=1))

    r_squared = fit_encoder(fold, sample_latents, **QUICK).r_squared
    assert (r_squared[:2] < 0.05).all()
    assert r_squared[2] > 0.98


def test_a_mixture_is_read_as_far_as_it_can_be(basis):
    # of z₀ + z₁ each explains a half
    encoder = fit_encoder(
        lambda z: linear(basis[:1])(z[:, :1] + z[:, 1:2]), sample_latents, **QUICK
    )
    np.testing.assert_allclose(encoder.r_squared, [0.5, 0.5, 0], atol=0.1)


def test_scale_and_mean_of_latents_do_not_matter(basis):
    def far(n, generator):
        return 100 + 20 * sample_latents(n, generator)

    encoder = fit_encoder(lambda z: linear(basis)((z - 100) / 20), far, **QUICK)
    assert (encoder.r_squared > 0.99).all()
    np.testing.assert_allclose(encoder.mean, 100, atol=5)
    np.testing.assert_allclose(encoder.std, 20, atol=3)
    images = linear(basis)(torch.zeros(5, 3))
    np.testing.assert_allclose(encoder.encode(images), 100, atol=10)


def test_directions_choose_what_is_read(basis):
    directions = torch.tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]])
    encoder = fit_encoder(linear(basis), sample_latents, directions=directions, **QUICK)
    assert (encoder.r_squared > 0.99).all()
    z = sample_latents(200, torch.Generator().manual_seed(1))
    codes = encoder.encode(linear(basis)(z))
    np.testing.assert_allclose(codes, z @ directions.T, atol=0.5)


def test_a_latent_that_does_not_vary_has_no_score(basis):
    def fixed(n, generator):
        return sample_latents(n, generator) * torch.tensor([1.0, 0.0, 1.0]) + 0.1

    encoder = fit_encoder(linear(basis), fixed, **QUICK)
    np.testing.assert_array_equal(np.isnan(encoder.r_squared), [False, True, False])
    assert encoder.score > 0.99
    assert encoder.encode(linear(basis)(torch.zeros(1, 3))).isfinite().all()
    nothing = fit_encoder(linear(basis), lambda n, g: torch.ones(n, 3), **QUICK | {"steps": 1})
    assert np.isnan(nothing.score)


def test_codes_of_a_generator_can_be_scored(basis):
    """A GAN whose latents are the factors of the data, and one that rotates them."""
    factors = np.random.default_rng(0).integers(0, 5, size=(1_000, 3))
    latents = torch.from_numpy((factors - 2) / np.sqrt(2)).float()
    images = linear(basis)(latents)  # the data set
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))[0]
    aligned = fit_encoder(linear(basis), sample_latents, **QUICK)
    rotated = fit_encoder(lambda z: linear(basis)(z @ rotation), sample_latents, **QUICK)
    assert min(aligned.score, rotated.score) > 0.99
    assert mig(aligned.encode(images), factors).score > 0.8
    assert mig(rotated.encode(images), factors).score < 0.4


def test_the_seed_decides_and_nothing_else_is_touched(basis):
    with torch.no_grad():  # as in an evaluation
        first = fit_encoder(linear(basis), sample_latents, **QUICK)
    torch.manual_seed(77)
    again = fit_encoder(linear(basis), sample_latents, **QUICK)
    other = fit_encoder(linear(basis), sample_latents, seed=1, **QUICK)
    np.testing.assert_array_equal(first.r_squared, again.r_squared)
    images = linear(basis)(torch.ones(4, 3))
    assert torch.equal(first.encode(images), again.encode(images))
    assert (first.r_squared != other.r_squared).all()
    torch.manual_seed(77)
    expected = torch.get_rng_state()
    fit_encoder(linear(basis), sample_latents, **QUICK | {"steps": 1})
    assert torch.equal(torch.get_rng_state(), expected)


def test_the_generator_gets_no_gradient(basis):
    generator = torch.nn.Linear(3, 2 * 8 * 8)
    fit_encoder(
        lambda z: generator(z).tanh().view(-1, 2, 8, 8), sample_latents, **QUICK | {"steps": 2}
    )
    assert generator.weight.grad is None


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 7, 9), (1, 16, 5), (2, 64, 64), (3, 200, 70)])
def test_any_image_size_is_taken(shape):
    network = ConvolutionalEncoder(shape, 6, channels=2)
    images = torch.randn(3, *shape)
    assert network(images).shape == (3, 6)
    assert not torch.equal(network(images)[0], network(images)[1])


def test_large_images_are_averaged_down():
    small = torch.rand(2, 1, 64, 64)
    large = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.manual_seed(0)
    on_large = ConvolutionalEncoder((1, 128, 128), 4, channels=2)
    torch.manual_seed(0)
    on_small = ConvolutionalEncoder((1, 64, 64), 4, channels=2)
    torch.testing.assert_close(on_large(large), on_small(small))


def test_double_precision_generators_are_taken(basis):
    def doubles(n, generator):
        return sample_latents(n, generator).double()

    encoder = fit_encoder(linear(basis.double()), doubles, **QUICK | {"steps": 2})
    assert encoder.encode(linear(basis)(torch.ones(1, 3)).double()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"held_out": 1}, "held_out must be at least 2, got 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive and finite, got nan"),
        ({"directions": torch.eye(4)}, r"directions must have the shape \(A, 3\).*got \(4, 4\)"),
        ({"directions": torch.ones(3)}, r"directions must have the shape \(A, 3\).*got \(3,\)"),
    ],
)
def test_bad_options_are_refused(basis, options, message):
    with pytest.raises(ValueError, match=message):
        fit_encoder(linear(basis), sample_latents, **{**QUICK, **options})


def test_an_encoder_that_diverges_is_a_failure(basis):
    with pytest.raises(FloatingPointError, match="diverged: choose a lower learning_rate"):
        fit_encoder(linear(basis), sample_latents, **QUICK | {"steps": 5, "learning_rate": 1e30})


@pytest.mark.parametrize(
    ("sample", "decode", "message"),
    [
        (
            lambda n, g: torch.randn(n),
            None,
            r"shape \(300, D\), got torch.float32 of shape \(300,\)",
        ),
        (lambda n, g: torch.randn(2, 3), None, r"shape \(300, D\), got .* of shape \(2, 3\)"),
        (lambda n, g: torch.ones(n, 3).long(), None, "floating-point numbers .* got torch.int64"),
        (lambda n, g: torch.full((n, 3), torch.nan), None, "sample_latents must give finite"),
        (sample_latents, lambda z: z, r"images of shape \(300, C, H, W\).*of shape \(300, 3\)"),
        (sample_latents, lambda z: torch.ones(7, 1, 8, 8), r"of shape \(7, 1, 8, 8\)"),
        (sample_latents, lambda z: torch.ones(len(z), 1, 3, 8), "H and W at least 4"),
        (
            sample_latents,
            lambda z: z.log()[..., None, None].expand(-1, -1, 4, 4),
            "decode must give finite images",
        ),
        (sample_latents, lambda z: torch.full((len(z), 1, 8, 8), 255.0), "got values from 255 to"),
    ],
)
def test_bad_generators_are_refused(basis, sample, decode, message):
    with pytest.raises(ValueError, match=message):
        fit_encoder(decode or linear(basis), sample, **QUICK)


def test_images_of_another_shape_are_refused(basis):
    encoder = fit_encoder(linear(basis), sample_latents, **QUICK | {"steps": 1})
    with pytest.raises(ValueError, match=r"shape \(N, 2, 8, 8\), got \(5, 2, 8, 9\)"):
        encoder.encode(torch.zeros(5, 2, 8, 9))
