import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torchmetrics.functional.image import perceptual_path_length as torchmetrics_ppl

from disentangle.metrics.feature_networks import (
    random_features,
    squared_feature_distance,
)
from disentangle.metrics.latent_pairs import as_coordinates
from disentangle.metrics.perceptual_path_length import (
    Path,
    average_down,
    perceptual_path_length,
)

DIM = 6
# small enough that images of usual latents stay in [-1, 1]
WEIGHT = torch.randn(DIM, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 32


def linear(z):
    """Images of 4 × 4 pixels that are a linear function of the latents."""
    return (z @ WEIGHT.to(z)).view(-1, 1, 4, 4)


def prior(n, generator):
    return torch.randn(n, DIM, generator=generator, dtype=torch.float64)


def squared(x, y):
    return (x - y).square().flatten(1).sum(dim=1)


def ends(samples, seed):
    """The latents and path parameters that a seed gives."""
    generator = torch.Generator().manual_seed(seed)
    start, end = prior(samples, generator), prior(samples, generator)
    return start, end, torch.rand(samples, dtype=torch.float64, generator=generator)


def arc_velocity(a, b, t):
    """Derivative of `(sin((1 − t)θ) a + sin(tθ) b) / sin θ`."""
    theta = functional.cosine_similarity(a, b)[:, None].acos()
    t = t[:, None]
    return theta * (-((1 - t) * theta).cos() * a + (t * theta).cos() * b) / theta.sin()


@pytest.mark.parametrize("sampling", ["full", "end"])
def test_linear_generator_has_the_closed_form(sampling):
    start, end, t = ends(400, seed=3)
    t = t if sampling == "full" else 0 * t
    # a difference over a step is the derivative in its middle, up to the square of the step
    expected = (arc_velocity(start, end, t + 0.5e-4) @ WEIGHT).square().sum(dim=1).numpy()
    result = perceptual_path_length(
        linear, prior, squared, samples=400, sampling=sampling, seed=3, percentiles=(0, 100)
    )
    np.testing.assert_allclose(result.lengths, expected, rtol=1e-6)
    assert result.score == pytest.approx(expected.mean(), rel=1e-6)


def test_straight_paths_have_the_closed_form():
    start, end, _ = ends(300, seed=0)
    expected = ((end - start) @ WEIGHT).square().sum(dim=1).numpy()
    result = perceptual_path_length(
        linear, prior, squared, samples=300, interpolation="lerp", percentiles=(0, 100)
    )
    np.testing.assert_allclose(result.lengths, expected, rtol=1e-6)
    assert result.score == pytest.approx(expected.mean(), rel=1e-6)
    spread = expected.std(ddof=1) / math.sqrt(300)
    assert result.standard_error == pytest.approx(spread, rel=1e-6)


def test_unit_arcs_have_a_constant_speed_on_the_sphere():
    start, end, _ = ends(200, seed=0)
    theta = functional.cosine_similarity(start, end).acos()
    result = perceptual_path_length(
        lambda z: z[:, :, None, None],
        prior,
        squared,
        samples=200,
        interpolation="unit_slerp",
        percentiles=(0, 100),
    )
    np.testing.assert_allclose(result.lengths, theta.square(), rtol=1e-6)


def test_paths_keep_the_length_of_a_gaussian_prior():
    # unit vectors, or the mean of two ends, are latents that the generator never saw
    generator = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 500, 400, generator=generator)
    rows, middle = torch.arange(500), torch.full((500,), 0.5)

    def mean_length(interpolation):
        path = Path(start, end, interpolation)
        return path.at(rows, middle).norm(dim=1).mean().item() / math.sqrt(400)

    assert mean_length("slerp") == pytest.approx(1, abs=0.01)
    assert mean_length("lerp") == pytest.approx(math.sqrt(0.5), abs=0.01)
    assert mean_length("unit_slerp") == pytest.approx(1 / 20, abs=1e-6)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), dim=st.integers(2, 8), t=st.floats(0, 1))
def test_arcs_go_from_end_to_end_in_their_plane(seed, dim, t):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 1, dim, generator=generator, dtype=torch.float64)
    path, row = Path(a, b, "slerp"), torch.tensor([0])
    torch.testing.assert_close(path.at(row, torch.tensor([0.0])), a)
    torch.testing.assert_close(path.at(row, torch.tensor([1.0])), b)
    z = path.at(row, torch.tensor([t], dtype=torch.float64))
    back = Path(b, a, "slerp").at(row, torch.tensor([1 - t], dtype=torch.float64))
    torch.testing.assert_close(z, back)
    equal = Path(a, b * a.norm() / b.norm(), "slerp").at(row, torch.tensor([t]).double())
    torch.testing.assert_close(equal.norm(), a.norm())


@pytest.mark.parametrize("factor", [2.0, -1.0, 1.0])
def test_latents_on_one_line_are_joined_by_a_line(factor):
    a = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    half = Path(a, factor * a, "slerp").at(torch.tensor([0]), torch.tensor([0.5]))
    torch.testing.assert_close(half, (1 + factor) / 2 * a)


class Generator(torch.nn.Module):
    """What torchmetrics asks for: images in [0, 255], latents without a random state."""

    def __init__(self, latents):
        super().__init__()
        self.latents = list(latents)

    def sample(self, num_samples):
        return self.latents.pop(0)

    def forward(self, z):
        return (linear(z).tanh() + 1) * 127.5


class Squared(torch.nn.Module):
    def forward(self, x, y):
        return squared(x, y)


@pytest.mark.parametrize(("ours", "theirs"), [("slerp", "slerp_any"), ("lerp", "lerp")])
def test_is_the_value_of_torchmetrics(ours, theirs):
    start, end, _ = ends(200, seed=5)
    expected = torchmetrics_ppl(
        Generator([start, end]),
        num_samples=200,
        interpolation_method=theirs,
        resize=None,
        lower_discard=None,
        upper_discard=None,
        sim_net=Squared(),
    )
    result = perceptual_path_length(
        lambda z: linear(z).tanh(),
        prior,
        squared,
        samples=200,
        sampling="end",
        interpolation=ours,
        percentiles=(0, 100),
        seed=5,
    )
    np.testing.assert_allclose(np.sort(result.lengths), np.sort(expected[2]), rtol=1e-6)
    assert result.score == pytest.approx(expected[0].item(), rel=1e-6)


def test_is_the_published_protocol():
    """StyleGAN's, one latent at a time."""
    decode = torch.nn.Sequential(
        torch.nn.Linear(DIM, 12), torch.nn.Tanh(), torch.nn.Unflatten(1, (3, 2, 2))
    ).double()
    start, end, t = ends(150, seed=0)
    lengths = []
    for a, b, s in zip(start.numpy(), end.numpy(), t.numpy(), strict=True):
        points = []
        for where in (s, s + 1e-4):
            a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
            angle = where * np.arccos(a @ b)
            c = b - (a @ b) * a
            points.append(a * np.cos(angle) + c / np.linalg.norm(c) * np.sin(angle))
        images = decode(torch.tensor(np.array(points))).detach().numpy()
        lengths.append(((images[0] - images[1]) ** 2).sum() / 1e-4**2)
    low, high = (
        np.percentile(lengths, 1, method="lower"),
        np.percentile(lengths, 99, method="higher"),
    )
    expected = np.mean([x for x in lengths if low <= x <= high])
    result = perceptual_path_length(decode, prior, squared, samples=150, interpolation="unit_slerp")
    np.testing.assert_allclose(result.lengths, lengths, rtol=1e-6)
    assert result.score == pytest.approx(expected, rel=1e-6)
    assert result.bounds == pytest.approx((low, high), rel=1e-6)


def test_outliers_are_left_out():
    def jump(z):
        # a thousandth of the paths starts where the image is a cliff
        images = linear(z)
        return torch.where(z[:, :1, None, None] > 3.2, (1e6 * images).sin(), images)

    options = {"samples": 1_000, "seed": 2}
    smooth = perceptual_path_length(linear, prior, squared, **options)
    steep = perceptual_path_length(jump, prior, squared, **options)
    everything = perceptual_path_length(jump, prior, squared, percentiles=(0, 100), **options)
    assert steep.score == pytest.approx(smooth.score, rel=0.05)
    assert everything.score > 1e4 * smooth.score


def test_one_block_moves_and_the_rest_stays():
    seen = []

    def decode(z):
        seen.append(z)
        return linear(z)

    options = {"samples": 100, "interpolation": "lerp", "percentiles": (0, 100)}
    result = perceptual_path_length(decode, prior, squared, coordinates=[4, 1], **options)
    start, end, _ = ends(100, seed=0)
    before, after = (
        torch.cat(x) for x in zip(*(z.chunk(2) for z in seen[:1] + seen[2:]), strict=True)
    )
    fixed = [0, 2, 3, 5]
    assert torch.equal(before[:, fixed], start[:, fixed])
    assert torch.equal(after[:, fixed], start[:, fixed])
    step = ((end - start)[:, [1, 4]] @ WEIGHT[[1, 4]]).square().sum(dim=1)
    np.testing.assert_allclose(result.lengths, step, rtol=1e-6)


def test_dead_blocks_have_no_length():
    result = perceptual_path_length(
        lambda z: z[:, :2, None, None].tanh(), prior, squared, samples=50, coordinates=[2, 3, 4]
    )
    assert result.score == 0


def test_a_block_of_one_has_a_line_but_no_arc():
    options = {"samples": 50, "coordinates": [2]}
    with pytest.raises(ValueError, match="slerp needs at least 2 coordinates, got 1: use lerp"):
        perceptual_path_length(linear, prior, squared, **options)
    line = perceptual_path_length(linear, prior, squared, interpolation="lerp", **options)
    assert line.score > 0


def test_latents_come_from_the_caller():
    calls = []

    def uniform(n, generator):
        calls.append(n)
        return torch.rand(n, DIM, generator=generator)

    perceptual_path_length(linear, uniform, squared, samples=70)
    assert calls == [70, 70]


def test_batches_do_not_matter_and_have_their_size():
    sizes = []

    def decode(z):
        sizes.append(len(z))
        assert not torch.is_grad_enabled()
        return linear(z)

    small = perceptual_path_length(decode, prior, squared, samples=50, batch_size=11)
    assert sizes == [10] * 11  # the first batch is decoded twice
    large = perceptual_path_length(decode, prior, squared, samples=50, batch_size=1_000)
    assert sizes[-1] == 100
    np.testing.assert_allclose(small.lengths, large.lengths, rtol=1e-7)


def test_seeds_reproduce():
    first, again, other = (
        perceptual_path_length(linear, prior, squared, samples=20, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.lengths, again.lengths)
    assert first.score != other.score


def test_single_precision_is_enough():
    def single(n, generator):
        return prior(n, generator).float()

    options = {"samples": 200, "percentiles": (0, 100)}
    exact = perceptual_path_length(linear, prior, squared, **options)
    rounded = perceptual_path_length(linear, single, squared, **options)
    assert rounded.score == pytest.approx(exact.score, rel=1e-3)


def test_large_images_are_averaged_down():
    images = torch.rand(2, 1, 12, 16)
    torch.testing.assert_close(average_down(images, 5), functional.avg_pool2d(images, 2))
    assert average_down(images, 7) is images
    assert average_down(images, None) is images

    def stripes(z):  # black and white columns, whose mean does not move
        return z[:, :1, None, None].tanh() * torch.tensor([1.0, -1.0]).repeat(4).to(z).expand(8, 8)

    options = {"samples": 20, "coordinates": [0, 1]}
    assert perceptual_path_length(stripes, prior, squared, **options).score > 1
    smaller = perceptual_path_length(stripes, prior, squared, maximum_size=4, **options)
    assert smaller.score == pytest.approx(0, abs=1e-6)


def test_random_features_take_grey_images_and_are_labelled():
    weight = torch.randn(DIM, 256)
    result = perceptual_path_length(
        lambda z: (z.float() @ weight / 4).tanh().view(-1, 1, 16, 16),
        prior,
        squared_feature_distance(random_features()),
        samples=30,
    )
    assert result.score > 0
    assert result.features == "squared distance, random (seed 0)"
    assert result.caveat == "random features, not comparable with published values"
    plain = perceptual_path_length(linear, prior, squared, samples=30)
    assert plain.caveat == "unnamed features, not comparable with published values"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"epsilon": 0.0}, "epsilon must be between 0 and 1, got 0.0"),
        ({"sampling": "middle"}, r"sampling must be one of \('full', 'end'\), got 'middle'"),
        ({"interpolation": "cubic"}, "one of slerp, unit_slerp, lerp, got 'cubic'"),
        ({"percentiles": (99, 1)}, r"percentiles must ascend from 0 to 100, got \(99, 1\)"),
        ({"maximum_size": 0}, "maximum_size must be at least 1, got 0"),
        ({"coordinates": [0, 6]}, r"integers from 0 to 5, got \[0, 6\]"),
        ({"coordinates": [1, 1]}, r"distinct integers from 0 to 5, got \[1, 1\]"),
        ({"coordinates": []}, r"got \[\]"),
        ({"coordinates": [-1, 2]}, r"got \[-1, 2\]"),
    ],
)
def test_bad_protocols_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        perceptual_path_length(linear, prior, squared, **{"samples": 10, **options})


@pytest.mark.parametrize(
    ("decode", "sample", "distance", "message"),
    [
        (lambda z: z, prior, squared, r"shape \(20, C, H, W\), got torch.float64 of .*\(20, 6\)"),
        (
            lambda z: linear(z).bfloat16(),
            prior,
            squared,
            "float32 or float64, .* got torch.bfloat16",
        ),
        (lambda z: linear(z).log(), prior, squared, "decode must give finite images"),
        (linear, lambda n, g: prior(n, g)[0], squared, r"shape \(10, D\), got torch.float64"),
        (linear, lambda n, g: prior(n, g).long(), squared, "got torch.int64 of shape"),
        (linear, prior, lambda x, y: (x - y).square(), "distance must give 10 finite numbers"),
        (linear, prior, lambda x, y: squared(x, y).log() * torch.nan, "with 10 NaN or infinite"),
    ],
)
def test_bad_callables_are_refused(decode, sample, distance, message):
    with pytest.raises(ValueError, match=message):
        perceptual_path_length(decode, sample, distance, samples=10)


def test_coordinates_are_all_by_default():
    assert as_coordinates(None, 3).tolist() == [0, 1, 2]
    assert as_coordinates((2, 0), 3).tolist() == [2, 0]
