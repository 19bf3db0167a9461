"""Range of the images that metrics take, and decoders that do not give the same image twice."""

import math

import pytest
import torch

from disentangle.metrics import (
    FeatureMoments,
    activeness,
    extract_features,
    fit_encoder,
    frechet_inception_distance,
    perceptual_path_length,
    random_features,
    squared_feature_distance,
    variation_predictability,
)
from disentangle.metrics.features import FeatureOrigin
from disentangle.metrics.image_range import check_range

BYTES = "in \\[-1, 1\\], got values from .* to 2.*: scale them, as x / 127.5 - 1 does"
UNIT = "images never go below 0: they look like images in [0, 1], not [-1, 1]"
NETWORK = random_features(dim=8)
LATENTS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(3, 256, generator=torch.Generator().manual_seed(1))


def decode(z):
    return (z @ WEIGHT.to(z)).tanh().view(-1, 1, 16, 16)


def prior(n, generator):
    return torch.randn(n, 3, generator=generator)


def measure_activeness(decoder):
    return activeness(decoder, LATENTS, torch.eye(3))


def measure_predictability(decoder):
    few = {"pairs": 20, "test_ratio": 0.5, "epochs": 1, "width": 2, "seeds": [0]}
    return variation_predictability(decoder, prior, **few)


def measure_lengths(decoder, **options):
    distance = squared_feature_distance(NETWORK)
    return perceptual_path_length(decoder, prior, distance, samples=10, **options)


def fit(decoder):
    return fit_encoder(decoder, prior, steps=2, channels=2, held_out=10)


def measure_frechet(decoder):
    images = decoder(torch.randn(20, 3))
    return frechet_inception_distance(
        FeatureMoments.of_images(NETWORK, images.split(8)),
        FeatureMoments.of_images(NETWORK, [images]),
    )


DETERMINISTIC = [measure_activeness, measure_predictability, measure_lengths]
EVERY = [*DETERMINISTIC, fit, measure_frechet]


@pytest.mark.parametrize("measure", EVERY)
@pytest.mark.parametrize("change", [lambda x: 255 * (x + 1) / 2, lambda x: 1.01 * x.sign() * 2])
def test_images_in_another_range_are_refused(measure, change):
    with pytest.raises(ValueError, match=BYTES):
        measure(lambda z: change(decode(z)))


@pytest.mark.parametrize("measure", EVERY)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_images_that_are_not_finite_are_refused(measure, wrong):
    with pytest.raises(ValueError, match=r"finite .*in \[-1, 1\], got NaN or infinity"):
        measure(lambda z: decode(z).index_fill(3, torch.tensor([5]), wrong))


@pytest.mark.parametrize("measure", EVERY)
def test_images_that_never_go_below_zero_get_a_caveat(measure):
    assert UNIT in measure(lambda z: (decode(z) + 1) / 2).caveat
    assert UNIT not in measure(lambda z: decode(z).clamp(max=0.5)).caveat


@pytest.mark.parametrize("beyond", [1.0, 1.0005, 1.002])
def test_rounding_is_let_through(beyond):
    assert check_range(torch.tensor([-beyond, beyond])) == pytest.approx(-beyond)
    with pytest.raises(ValueError, match=r"got values from 0 to 1\.003"):
        check_range(torch.tensor([0, 1.003]))


@pytest.mark.parametrize("measure", DETERMINISTIC)
@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_a_decoder_with_noise_of_its_own_is_refused(measure, noise):
    def noisy(z):
        return (decode(z) + noise * torch.randn(len(z), 1, 16, 16)).clamp(-1, 1)

    with pytest.raises(ValueError, match=r"decode must give the same images .*its noise off"):
        measure(noisy)


@pytest.mark.parametrize("measure", DETERMINISTIC)
def test_so_is_one_whose_noise_has_a_seed(measure):
    def noisy(z):
        noise = torch.randn(len(z), 1, 16, 16, generator=torch.Generator().manual_seed(0))
        return (decode(z) + 0.05 * noise).clamp(-1, 1)

    with pytest.raises(ValueError, match=r"decoded again in another order"):
        measure(noisy)


@pytest.mark.parametrize("measure", [*DETERMINISTIC, fit])
def test_decoders_of_something_else_are_refused(measure):
    with pytest.raises(ValueError, match="decode must give a tensor, got tuple"):
        measure(lambda z: (decode(z), None))
    with pytest.raises(ValueError, match=r"floating-point images .*, got torch\.uint8 of shape"):
        measure(lambda z: (255 * decode(z).abs()).byte())


@pytest.mark.parametrize("measure", DETERMINISTIC)
def test_decoders_may_change_their_latents_but_not_hide_noise(measure):
    expected = measure(decode).score
    assert measure(lambda z: decode(z.mul_(0.5).mul(2))).score == pytest.approx(expected)
    buffers = {}

    def reuse(z):
        images = buffers.setdefault(len(z), torch.empty(len(z), 1, 16, 16))
        return images.copy_(decode(z)).add_(torch.rand_like(images), alpha=0.1).clamp_(-1, 1)

    with pytest.raises(ValueError, match="the same images of the same latents"):
        measure(reuse)


def test_path_lengths_bear_less_noise_the_smaller_their_step():
    def noisy(z):
        return (decode(z) + 1e-4 * torch.rand(len(z), 1, 16, 16)).clamp(-1, 1)

    assert measure_lengths(noisy, epsilon=1e-2).score > 0
    with pytest.raises(ValueError, match="decode must give the same images"):
        measure_lengths(noisy, epsilon=1e-4)


def test_noise_is_for_the_encoder_to_bear():
    assert fit(lambda z: (decode(z) + torch.rand(len(z), 1, 16, 16)).clamp(-1, 1)).score < 1


def test_fitted_encoders_refuse_images_in_another_range():
    encoder = fit(decode)
    with pytest.raises(ValueError, match=BYTES):
        encoder.encode(255 * decode(LATENTS).abs())
    assert encoder.encode(decode(LATENTS)[:0]).shape == (0, 3)


@pytest.mark.parametrize("network", [NETWORK, lambda x: x.flatten(1)])
def test_features_of_images_in_another_range_are_refused(network):
    images = torch.rand(4, 3, 16, 16)
    with pytest.raises(ValueError, match=BYTES):
        extract_features(network, [images, 255 * images])
    with pytest.raises(ValueError, match=r"images must be floating point, got torch.uint8"):
        extract_features(network, [(255 * images).byte()])
    with pytest.raises(ValueError, match="images must be a dense tensor, got ndarray"):
        extract_features(network, [images.numpy()])


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda x: x.to_sparse(), r"a dense tensor, got torch\.sparse_coo"),
        (lambda x: x.to("meta"), r"a dense tensor, got a tensor on the meta device"),
        (lambda x: x.to(torch.float8_e4m3fn), r"a dtype .*, got torch\.float8_e4m3fn"),
    ],
)
def test_tensors_of_another_kind_are_refused(change, got):
    with pytest.raises(ValueError, match=f"images must (be|have) {got}"):
        extract_features(NETWORK, [change(torch.rand(4, 3, 16, 16))])


def test_networks_by_themselves_refuse_another_range():
    images = torch.rand(4, 3, 16, 16)
    distance = squared_feature_distance(NETWORK)
    for wrong in (255 * images, images / 0):
        with pytest.raises(ValueError, match="images must be finite and in"):
            NETWORK(wrong)
        with pytest.raises(ValueError, match="images must be finite and in"):
            distance(images, wrong)


def test_one_dark_batch_is_enough():
    bright, dark = torch.rand(4, 1, 16, 16), -torch.rand(4, 1, 16, 16)
    for batches, lowest in (([bright, bright], bright.min()), ([bright, dark], dark.min())):
        features = extract_features(NETWORK, batches)
        moments = FeatureMoments.of_images(NETWORK, batches)
        assert features.origin.lowest == moments.origin.lowest == lowest
    both = frechet_inception_distance(*(FeatureMoments.of_images(NETWORK, [bright]),) * 2)
    assert f"; the generated and reference {UNIT}" in both.caveat


def test_features_of_unknown_images_get_no_caveat():
    unknown, known = FeatureOrigin(), FeatureOrigin(lowest=0.5)
    assert unknown.join(unknown).lowest is None
    assert unknown.join(known).lowest == known.join(unknown).lowest == 0.5
