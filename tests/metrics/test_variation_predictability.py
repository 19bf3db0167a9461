import importlib

import numpy as np
import pytest
import torch
from torch import nn

from disentangle.metrics.variation_predictability import (
    build_classifier,
    variation_predictability,
)

# the package's attribute of this name is the function
MODULE = importlib.import_module("disentangle.metrics.variation_predictability")

# small enough for a second or two on one thread; the default is the published protocol
QUICK = {"pairs": 240, "test_ratio": 0.5, "epochs": 12, "width": 8, "seeds": [0]}


def prior(dim):
    return lambda n, generator: torch.randn(n, dim, generator=generator)


def pixel_generator(pixels, size=16, channels=1):
    """Each latent moves its own pixel, (row, column), from black to white."""
    patterns = torch.zeros(len(pixels), channels, size, size)
    for latent, (row, column) in enumerate(pixels):
        patterns[latent, :, row, column] = 1
    return lambda z: torch.einsum("nd,dchw->nchw", z.tanh(), patterns.to(z))


PIXELS = [(1, 1), (8, 6), (13, 14)]


def test_a_pixel_for_each_latent_is_perfectly_predictable():
    result = variation_predictability(
        pixel_generator(PIXELS), prior(3), **{**QUICK, "epochs": 25, "learning_rate": 3e-3}
    )
    assert result.score > 0.95
    assert result.chance == pytest.approx(1 / 3)
    assert np.trace(result.confusion) == result.score * 120
    assert result.confusion.sum() == 120


def test_a_generator_that_ignores_its_latents_is_at_chance():
    result = variation_predictability(
        lambda z: torch.zeros(len(z), 1, 16, 16), prior(5), **{**QUICK, "pairs": 2_000, "epochs": 2}
    )
    # the standard deviation of an accuracy of 0.2 on 1,000 pairs is 0.013
    assert result.score == pytest.approx(0.2, abs=0.05)
    assert (result.confusion.sum(axis=0) == 0).sum() == 4  # equal inputs, one answer


def test_latents_with_the_same_effect_are_at_chance():
    same = pixel_generator([(4, 4), (4, 4)])
    result = variation_predictability(lambda z: same(z) / 2, prior(2), **QUICK)
    assert result.score == pytest.approx(0.5, abs=0.15)
    assert result.train_scores[0] < 0.8


def test_more_than_a_hundred_latents():
    # the published code of the pairs has a list of 100
    result = variation_predictability(
        lambda z: z.tanh().view(-1, 1, 16, 16), prior(256), **{**QUICK, "epochs": 1}
    )
    assert result.confusion.shape == (256, 256)
    assert result.chance == 1 / 256


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_number_of_channels(channels):
    decode = pixel_generator(PIXELS, channels=channels)
    result = variation_predictability(decode, prior(3), **{**QUICK, "epochs": 1})
    assert 0 <= result.score <= 1


def test_images_do_not_pass_through_eight_bits():
    # changes of a thousandth of the range: a JPEG file has none of them
    decode = pixel_generator(PIXELS)
    result = variation_predictability(
        lambda z: decode(z) * 1e-3, prior(3), **{**QUICK, "epochs": 25, "learning_rate": 3e-3}
    )
    assert result.score > 0.9


def spy(decode):
    """The decoder and a list of the pairs of latents that it was given, the first ones twice."""
    seen = []

    def spying(z):
        assert not torch.is_grad_enabled()
        seen.append(z.chunk(2))
        return decode(z)

    return spying, seen


def test_latents_of_a_pair_differ_in_one_coordinate_of_the_prior():
    decode, seen = spy(pixel_generator(PIXELS))
    variation_predictability(decode, prior(3), **{**QUICK, "epochs": 1, "decode_batch_size": 32})
    assert {len(first) for first, _ in seen} == {16}
    first, second = (torch.cat(x) for x in zip(*seen[1:], strict=True))
    assert len(first) == 240
    assert ((first != second).sum(dim=1) == 1).all()
    moved = (first != second).float().mean(dim=0)
    assert (moved > 0.2).all()
    both = torch.cat([first, second])
    assert both.std().item() == pytest.approx(1, abs=0.05)
    assert both.abs().max() > 2.5  # not uniform on [−2, 2]


def test_some_coordinates_in_a_uniform_range():
    patterns = pixel_generator(PIXELS)
    decode, seen = spy(lambda z: patterns(z[:, 5:]))
    result = variation_predictability(
        decode, prior(8), coordinates=[7, 5], uniform_range=4.0, **{**QUICK, "epochs": 1}
    )
    assert result.chance == 0.5
    first, second = (torch.cat(x) for x in zip(*seen[1:], strict=True))
    moved = (first != second).sum(dim=0)
    assert moved[[5, 7]].min() > 80
    assert moved.sum() == 240
    for z in (first, second):
        assert z[:, [5, 7]].abs().max() <= 4
        assert z[:, [5, 7]].std().item() == pytest.approx(4 / 3**0.5, rel=0.1)
    shared = first[:, [0, 1, 2, 3, 4, 6]]
    assert shared.std().item() == pytest.approx(1, abs=0.05)


def test_truncation_scales_the_latents_that_cannot_change():
    patterns = pixel_generator(PIXELS)
    decode, seen = spy(lambda z: patterns(z[:, 5:]))
    options = {**QUICK, "epochs": 1}
    variation_predictability(decode, prior(8), coordinates=[7, 5], truncation=0.7, **options)
    first, second = (torch.cat(x) for x in zip(*seen[1:], strict=True))
    fixed = [0, 1, 2, 3, 4, 6]
    assert first[:, fixed].std().item() == pytest.approx(0.7, abs=0.04)
    assert torch.equal(first[:, fixed], second[:, fixed])
    assert first[:, [5, 7]].std().item() == pytest.approx(1, abs=0.1)


def test_the_classifier_sees_position_near_the_border_only():
    network = build_classifier(1, 3, width=8).double().eval()
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):  # as after training: the background is not zero
            nn.init.normal_(layer.bias)
    places = [(32, 32), (60, 92), (92, 48), (32, 2)]  # the last one is near the border
    images = torch.zeros(4, 1, 128, 128, dtype=torch.float64)
    for image, (row, column) in zip(images, places, strict=True):
        image[0, row, column] = 1
    with torch.no_grad():
        logits = network(images)
    torch.testing.assert_close(logits[1:3], logits[:1].expand(2, 3), rtol=1e-12, atol=1e-12)
    assert (logits[3] - logits[0]).abs().max() > 1e-9


def test_the_classifier_is_the_published_one():
    network = build_classifier(3, 30)
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes == [
        *((64, 3, 7, 7), (64, 64, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3)),
        (30, 256),
    ]
    x = torch.zeros(2, 3, 64, 64)
    sizes = [
        (x := layer(x)).shape[-1]
        for layer in network
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    ]
    assert sizes == [32, 32, 16, 16, 16]


def test_both_published_ratios_are_stated():
    decode = pixel_generator(PIXELS)
    for ratio, train in ((0.9, 20), (0.99, 2)):
        result = variation_predictability(
            decode, prior(3), **{**QUICK, "pairs": 200, "test_ratio": ratio, "epochs": 1}
        )
        assert result.test_ratio == ratio
        assert (result.train_pairs, result.test_pairs) == (train, 200 - train)
        assert result.confusion.sum() == 200 - train


def test_seeds_reproduce_and_are_averaged():
    decode = pixel_generator(PIXELS)
    state = torch.get_rng_state()
    options = {**QUICK, "epochs": 3}
    several = variation_predictability(decode, prior(3), **{**options, "seeds": [3, 4]})
    alone = [
        variation_predictability(decode, prior(3), **{**options, "seeds": [s]}) for s in (3, 4)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(several.scores, [run.score for run in alone])
    np.testing.assert_array_equal(several.confusion, sum(run.confusion for run in alone))
    assert not np.array_equal(alone[0].confusion, alone[1].confusion)
    assert several.score == pytest.approx(several.scores.mean())
    assert several.std == pytest.approx(several.scores.std(ddof=1))
    assert np.isnan(alone[0].std)


def test_progress_counts_the_epochs_of_all_seeds_and_changes_nothing():
    few, calls = {**QUICK, "epochs": 2, "seeds": [0, 1]}, []
    decode = pixel_generator(PIXELS)
    watched = variation_predictability(
        decode, prior(3), **few, progress=lambda *call: calls.append(call)
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    plain = variation_predictability(decode, prior(3), **few)
    np.testing.assert_array_equal(watched.confusion, plain.confusion)


def test_random_state_of_the_caller_does_not_matter():
    decode = pixel_generator(PIXELS)
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(
            variation_predictability(decode, prior(3), **{**QUICK, "epochs": 2}).confusion
        )
    np.testing.assert_array_equal(*scores)


def test_pairs_are_tested_one_by_one(monkeypatch):
    # with statistics of the test batch, the others in it would have a say
    results = []
    for size in (240, 7):
        monkeypatch.setattr(MODULE, "TEST_CHUNK", size)
        results.append(variation_predictability(pixel_generator(PIXELS), prior(3), **QUICK))
    np.testing.assert_array_equal(results[0].confusion, results[1].confusion)
    assert results[0].score < 1  # there is something to differ in


def test_best_epoch_is_the_best_on_the_test_pairs():
    decode = pixel_generator(PIXELS)
    options = {**QUICK, "pairs": 120}
    last = [
        variation_predictability(decode, prior(3), **{**options, "epochs": n}).score
        for n in range(1, 7)
    ]
    best = variation_predictability(decode, prior(3), **{**options, "epochs": 6, "epoch": "best"})
    assert best.score == max(last)
    assert best.score > last[-1] or best.score == last[-1] == max(last)


def test_half_precision_images_are_enough():
    decode = pixel_generator(PIXELS)
    result = variation_predictability(
        lambda z: decode(z).bfloat16(), prior(3), **{**QUICK, "epochs": 1}
    )
    assert 0 <= result.score <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 1}, "pairs must be at least 2, got 1"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"decode_batch_size": 1}, "decode_batch_size must be at least 2, got 1"),
        ({"test_ratio": 1.0}, "test_ratio must leave pairs for .*, got 1.0 of 240"),
        ({"test_ratio": 0.001}, "got 0.001 of 240"),
        ({"test_ratio": 0.999}, "got 0.999 of 240"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"uniform_range": -1.0}, "uniform_range must be positive, got -1.0"),
        ({"truncation": -0.1}, "truncation must be finite and not negative, got -0.1"),
        ({"epoch": "first"}, "epoch must be one of last, best, got 'first'"),
        ({"seeds": []}, "at least one seed, got none"),
        ({"coordinates": [1]}, "at least 2 latents to tell apart, got 1"),
        ({"coordinates": [0, 3]}, r"integers from 0 to 2, got \[0, 3\]"),
    ],
)
def test_bad_protocols_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        variation_predictability(pixel_generator(PIXELS), prior(3), **{**QUICK, **options})


def test_a_classifier_that_diverges_is_a_failure():
    with pytest.raises(FloatingPointError, match="diverged: choose a lower learning_rate"):
        variation_predictability(
            pixel_generator(PIXELS), prior(3), **{**QUICK, "epochs": 1, "learning_rate": np.inf}
        )


@pytest.mark.parametrize(
    ("decode", "sample", "message"),
    [
        (lambda z: z, prior(3), r"shape \(64, C, H, W\), got torch.float32 of shape \(64, 3\)"),
        (
            lambda z: z[:, :, None, None].tanh(),
            prior(3),
            r"16 pixels in height and width, got \(1, 1\)",
        ),
        (lambda z: pixel_generator(PIXELS)(z) / 0, prior(3), "decode must give finite images"),
        (lambda z: pixel_generator(PIXELS)(z) * 1e6, prior(3), r"images in \[-1, 1\], got values"),
        (
            lambda z: pixel_generator(PIXELS)(z) * 0.9 + 0.05 * torch.rand(len(z), 1, 16, 16),
            prior(3),
            "the same images of the same latents",
        ),
        (lambda z: pixel_generator(PIXELS)(z).byte(), prior(3), "got torch.uint8 of shape"),
        (pixel_generator(PIXELS), lambda n, g: prior(3)(n, g)[1:], r"shape \(240, D\), got"),
        (pixel_generator(PIXELS), lambda n, g: torch.zeros(n, 3).long(), "got torch.int64"),
    ],
)
def test_bad_callables_are_refused(decode, sample, message):
    with pytest.raises(ValueError, match=message):
        variation_predictability(decode, sample, **QUICK)
