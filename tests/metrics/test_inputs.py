"""Arguments of every metric: their meaning is kept, or they are refused."""

import inspect
import warnings

import numpy as np
import pytest
import scipy.sparse
import torch

from disentangle import metrics
from disentangle.adapters import adapt
from disentangle.metrics import (
    FeatureMoments,
    Features,
    accuracy,
    activeness,
    beta_vae_score,
    dci,
    explicitness,
    extract_features,
    factor_vae_score,
    fit_encoder,
    frechet_inception_distance,
    gaussian_total_correlation,
    histogram_dci,
    infomec,
    irs,
    kernel_inception_distance,
    mig,
    modularity,
    mutual_information_score,
    perceptual_path_length,
    random_features,
    sap,
    squared_feature_distance,
    udr,
    variation_predictability,
    wasserstein_correlation,
)
from disentangle.metrics.inputs import as_codes, as_factors, as_floating, as_numbers

RNG = np.random.default_rng(0)
FACTORS = RNG.integers(0, [2, 3], size=(100, 2))
CODES = FACTORS + 0.01 * RNG.normal(size=FACTORS.shape)
IMAGES = np.zeros((100, 1, 16, 16), dtype=np.float32)
LATENTS = RNG.normal(size=(100, 3))
POINTS = {"train_points": 10, "test_points": 10}


def sample(n, generator):
    return torch.randn(n, 3, generator=generator)


def decode(latents):
    return torch.zeros(len(latents), 1, 16, 16)


# A metric and its argument, a sound value of it, and the call.
CALLS = {
    "mig: codes": (CODES, lambda x: mig(x, FACTORS)),
    "mig: factors": (FACTORS, lambda x: mig(CODES, x)),
    "modularity: codes": (CODES, lambda x: modularity(x, FACTORS)),
    "irs: factors": (FACTORS, lambda x: irs(CODES, x)),
    "infomec: codes": (CODES, lambda x: infomec(x, FACTORS)),
    "sap: test codes": (CODES, lambda x: sap(CODES, FACTORS, x, FACTORS)),
    "sap: real factors": (
        FACTORS,
        lambda x: sap(CODES, x, CODES, FACTORS, continuous_factors=True),
    ),
    "dci: test factors": (FACTORS, lambda x: dci(CODES, FACTORS, CODES, x)),
    "histogram_dci: codes": (CODES, lambda x: histogram_dci(x, FACTORS, CODES, FACTORS)),
    "explicitness: factors": (FACTORS, lambda x: explicitness(CODES, x, CODES, FACTORS)),
    "gaussian_total_correlation: codes": (CODES, gaussian_total_correlation),
    "wasserstein_correlation: codes": (CODES, wasserstein_correlation),
    "mutual_information_score: codes": (CODES, mutual_information_score),
    "udr: codes": (CODES, lambda x: udr([CODES, x])),
    "udr: kl": (np.ones((2, 2)), lambda x: udr([CODES, CODES], kl=x)),
    "beta_vae_score: codes": (CODES, lambda x: beta_vae_score(lambda _: x, [2, 3], **POINTS)),
    "beta_vae_score: sizes": (np.array([2, 3]), lambda x: beta_vae_score(abs, x, **POINTS)),
    "factor_vae_score: codes": (CODES, lambda x: factor_vae_score(lambda _: x, [2, 3], **POINTS)),
    "factor_vae_score: sizes": (np.array([2, 3]), lambda x: factor_vae_score(abs, x, **POINTS)),
    "frechet_inception_distance: features": (
        LATENTS,
        lambda x: frechet_inception_distance(FeatureMoments.of(x), LATENTS),
    ),
    "kernel_inception_distance: reference": (
        LATENTS,
        lambda x: kernel_inception_distance(LATENTS, Features(x), subset_size=20),
    ),
    "extract_features: images": (IMAGES, lambda x: extract_features(random_features(), [x])),
    "extract_features: features": (
        LATENTS,
        lambda x: extract_features(lambda _: x, [torch.from_numpy(IMAGES)]),
    ),
    "squared_feature_distance: images": (
        IMAGES,
        lambda x: squared_feature_distance(random_features())(x, torch.from_numpy(IMAGES)),
    ),
    "accuracy: logits": (LATENTS, lambda x: accuracy(x, np.zeros(100, dtype=int))),
    "accuracy: labels": (np.zeros(100, dtype=int), lambda x: accuracy(LATENTS, x)),
    "activeness: latents": (LATENTS, lambda x: activeness(decode, x, torch.eye(3))),
    "activeness: directions": (np.eye(3), lambda x: activeness(decode, torch.zeros(4, 3), x)),
    "activeness: images": (
        IMAGES[:12],
        lambda x: activeness(lambda _: x, torch.zeros(4, 3), torch.eye(3)),
    ),
    "activeness: std": (
        np.ones(3),
        lambda x: activeness(decode, torch.zeros(4, 3), torch.eye(3), std=x),
    ),
    "activeness: values": (
        np.ones(3),
        lambda x: activeness(decode, torch.zeros(4, 3), torch.eye(3), values=x),
    ),
    "perceptual_path_length: latents": (
        LATENTS,
        lambda x: perceptual_path_length(decode, lambda n, g: x, torch.sub, samples=100),
    ),
    "perceptual_path_length: images": (
        IMAGES,
        lambda x: perceptual_path_length(lambda _: x, sample, torch.sub, samples=50),
    ),
    "perceptual_path_length: distances": (
        np.ones(50),
        lambda x: perceptual_path_length(decode, sample, lambda a, b: x, samples=50),
    ),
    "variation_predictability: latents": (
        LATENTS,
        lambda x: variation_predictability(decode, lambda n, g: x, pairs=100),
    ),
    "variation_predictability: images": (
        IMAGES,
        lambda x: variation_predictability(lambda _: x, sample, pairs=50),
    ),
    "fit_encoder: latents": (LATENTS, lambda x: fit_encoder(decode, lambda n, g: x, held_out=100)),
    "fit_encoder: images": (IMAGES, lambda x: fit_encoder(lambda _: x, sample, held_out=100)),
    "fit_encoder: directions": (np.eye(3), lambda x: fit_encoder(decode, sample, directions=x)),
}


TENSORS = {
    "sparse": (lambda x: x.to_sparse(), "dense tensor, got torch.sparse_coo"),
    "meta": (lambda x: x.to("meta"), "on the meta device, which has no entries"),
    "quantised": (
        lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
        "got quantised torch.qint8",
    ),
    "float8": (lambda x: x.float().to(torch.float8_e5m2), "got torch.float8_e5m2"),
    "masked": (
        lambda x: torch.masked.masked_tensor(x, x == x[0]),
        "dense tensor, got a masked tensor",
    ),
    "nested": (lambda x: torch.nested.as_nested_tensor([x]), "got a nested tensor"),
    "complex": (lambda x: x.to(torch.complex64), "got torch.complex64"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", TENSORS)
def test_every_metric_refuses_a_tensor_that_means_more_than_its_entries(call, kind):
    value, metric = CALLS[call]
    make, message = TENSORS[kind]
    with warnings.catch_warnings(action="ignore"):  # torch calls some kinds prototypes
        special = make(torch.tensor(value))
    with pytest.raises(ValueError, match=message):
        metric(special)


def masked(array):
    return np.ma.array(array, mask=np.arange(array.size).reshape(array.shape) == 1)


ARRAYS = {
    "masked": (masked, "codes must have a value in every entry, got a masked one"),
    "masked rows": (lambda x: [masked(row) for row in x], "every entry, got a masked one"),
    "sparse": (scipy.sparse.csr_array, "codes must be dense, got a sparse csr_array"),
    "beyond int64": (
        lambda x: x.astype(np.uint64) + np.uint64(2**63),
        "must fit into int64, got 9",
    ),
    "object": (lambda x: x.astype(object), "codes must be real numbers, got object"),
    "structured": (lambda x: np.zeros(len(x), dtype=[("a", float)]), "real numbers, got .*'a'"),
    "dates": (lambda x: x.astype(int).astype("M8[s]"), r"real numbers, got datetime64\[s\]"),
    "ragged": (lambda x: [[1], [2, 3]], "must be an array of numbers, got list: .*inhomogeneous"),
    "integers that float64 rounds": (
        lambda x: x.astype(int) + 2**53,
        "must be at most 2.53 in size",
    ),
    "beyond float64": (lambda x: x + np.longdouble("1e400"), "codes must be finite, got 200 NaN"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_mean_more_than_their_entries_are_refused(kind):
    make, message = ARRAYS[kind]
    with pytest.raises(ValueError, match=message) as caught:
        mig(make(CODES), FACTORS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", TENSORS)
def test_foreign_decoders_that_give_such_tensors_are_refused(kind):
    make, message = TENSORS[kind]
    with warnings.catch_warnings(action="ignore"):
        special = make(torch.zeros(2, 1, 16, 16))
    with pytest.raises(ValueError, match=message):
        adapt(lambda z: special, latent_dim=3)


@pytest.mark.parametrize("call", CALLS)
def test_every_metric_refuses_masked_entries(call):
    value, metric = CALLS[call]
    with pytest.raises(ValueError, match=r"got a masked one|tensor, got MaskedArray"):
        metric(masked(value))


def test_no_metric_is_left_out():
    made = {"load_fid_inception", "load_lpips", "load_torchvision_features", "random_features"}
    functions = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert {call.partition(":")[0] for call in CALLS} == functions - made


def test_labels_beyond_int64_are_refused_and_none_wraps_around():
    labels = FACTORS.astype(np.uint64) + np.uint64(2**63 - 2)
    for wide in (labels, torch.from_numpy(labels)):
        with pytest.raises(
            ValueError, match="factors must fit into int64, got 9223372036854775808"
        ):
            as_factors(wide)
    assert as_factors(labels - np.uint64(2)).max() == 2**63 - 2


def test_large_labels_are_told_apart_or_refused():
    labels = FACTORS + 2**60
    assert mig(CODES, labels).score == mig(CODES, FACTORS).score
    assert irs(CODES, labels, bins=None).score == irs(CODES, FACTORS, bins=None).score
    with pytest.raises(ValueError, match=r"factors must be at most 2\^53 in size"):
        irs(CODES, labels)
    with pytest.raises(ValueError, match=r"factors must be at most 2\^53 in size"):
        as_factors(labels, real=True)


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.uint64]
)
def test_integers_of_every_width_are_the_same_labels_and_codes(dtype):
    factors = torch.from_numpy(FACTORS % 2).to(dtype)
    assert np.array_equal(as_factors(factors), FACTORS % 2)
    assert np.array_equal(as_codes(factors), FACTORS % 2)


def test_what_keeps_its_meaning_is_taken():
    expected = mig(CODES, FACTORS).score
    leaf = torch.from_numpy(CODES).requires_grad_()
    for same in (
        np.ma.array(CODES, mask=False),
        CODES.tolist(),
        CODES.astype(">f8"),
        np.asfortranarray(CODES)[::-1][::-1],
        leaf,
        torch.nn.Parameter(leaf),
        torch.complex(0 * leaf.detach(), -leaf.detach()).conj().imag,
    ):
        assert mig(same, FACTORS).score == expected
    rounded = torch.from_numpy(CODES).bfloat16()
    assert as_codes(rounded).dtype == np.float32
    assert np.array_equal(as_codes(rounded), rounded.float().numpy())


def test_the_largest_exact_integer_is_a_number():
    array = np.array([2**53, -(2**53)])
    assert np.array_equal(as_floating("codes", as_numbers("codes", array)), array)
    with pytest.raises(ValueError, match="got 9007199254740993"):
        as_floating("codes", np.array([-(2**53) - 1]))
