import numpy as np
import pytest
import torch

from disentangle.metrics import activeness

LATENTS = torch.randn(50, 3, generator=torch.Generator().manual_seed(3))


def linear(z):
    """Images whose pixels are z₀ / 8, z₁ / 16 and a constant."""
    return torch.stack([2 * z[:, 0], z[:, 1], 0 * z[:, 0] + 5], dim=1)[:, None, None] / 16


def test_linear_decoder_has_the_known_variances():
    result = activeness(linear, LATENTS, torch.eye(3))
    # the unbiased variance of (−2, 0, 2) is 4; a third of the pixels see it
    np.testing.assert_allclose(result.per_axis, [1 / 48, 1 / 192, 0], rtol=1e-6)
    assert result.score == pytest.approx(20 / 9 / 256)
    np.testing.assert_allclose(result.standard_errors, 0, atol=1e-6)


def test_is_the_published_protocol():
    torch.manual_seed(0)
    decode = torch.nn.Sequential(
        torch.nn.Linear(3, 12), torch.nn.Tanh(), torch.nn.Unflatten(1, (3, 2, 2))
    )
    expected = []
    for axis in range(3):
        images = []
        for value in (-2, 0, 2):
            moved = LATENTS.clone()
            moved[:, axis] = value
            images.append(decode(moved).detach().numpy())
        expected.append(np.var(np.stack(images), axis=0, ddof=1).mean())
    result = activeness(decode, LATENTS, torch.eye(3))
    np.testing.assert_allclose(result.per_axis, expected, rtol=1e-5)


def test_dead_axis_gets_exactly_zero():
    weight = torch.randn(3, 64)
    weight[2] = 0
    result = activeness(lambda z: (z @ weight).view(-1, 1, 8, 8).tanh(), LATENTS, torch.eye(3))
    assert result.per_axis[2] == 0
    assert (result.per_axis[:2] > 0.1).all()


def test_the_component_is_replaced_whatever_it_was():
    far = LATENTS + torch.tensor([100.0, 0.0, 0.0])

    def decode(z):
        return z.sigmoid()[:, :, None, None]

    near_result, far_result = (activeness(decode, z, torch.eye(3)[:1]) for z in (LATENTS, far))
    assert far_result.score == pytest.approx(near_result.score, rel=1e-4)


def test_oblique_direction_mixes_the_coordinates():
    direction = torch.tensor([[0.6, 0.8, 0.0]])
    result = activeness(linear, LATENTS, direction)
    assert result.score == pytest.approx((4 * 0.36 * 4 + 0.64 * 4) / 3 / 256, rel=1e-5)


def test_std_scales_every_axis():
    result = activeness(linear, LATENTS, torch.eye(3), std=[3.0, 0.5, 1.0])
    np.testing.assert_allclose(result.per_axis, [9 / 48, 0.25 / 192, 0], rtol=1e-6)
    shared = activeness(linear, LATENTS, torch.eye(3), std=torch.tensor(2.0))
    assert shared.score == pytest.approx(4 * 20 / 9 / 256)


def test_batches_do_not_matter_and_have_their_size():
    sizes = []

    def decode(z):
        sizes.append(len(z))
        assert not torch.is_grad_enabled()
        return linear(z)

    small = activeness(decode, LATENTS, torch.eye(3), batch_size=10)
    assert max(sizes) == 9  # three base latents with three values each
    large = activeness(decode, LATENTS, torch.eye(3), batch_size=1_000)
    assert max(sizes) == 450
    np.testing.assert_allclose(small.per_axis, large.per_axis, rtol=1e-12)


def test_one_base_latent_has_no_standard_error():
    result = activeness(linear, LATENTS[:1], torch.eye(3))
    assert np.isnan(result.standard_errors).all()
    assert result.score == pytest.approx(20 / 9 / 256)


def test_half_precision_images_are_accumulated_in_double():
    result = activeness(lambda z: linear(z).bfloat16(), LATENTS, torch.eye(3))
    assert result.per_axis.dtype == np.float64
    np.testing.assert_allclose(result.per_axis, [1 / 48, 1 / 192, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("latents", "directions", "options", "message"),
    [
        (LATENTS[0], torch.eye(3), {}, r"latents must be floating-point of shape \(N, D\)"),
        (LATENTS.long(), torch.eye(3), {}, "got torch.int64 of shape"),
        (LATENTS, torch.eye(4), {}, r"shape \(A, 3\) with A ≥ 1, got \(4, 4\)"),
        (LATENTS, torch.eye(3)[:0], {}, r"got \(0, 3\)"),
        (LATENTS, 2 * torch.eye(3), {}, r"must have length 1, got lengths \[2.0, 2.0, 2.0\]"),
        (
            LATENTS,
            torch.eye(3),
            {"std": [1.0, 2.0]},
            r"std must be a number or 3 numbers, got \(2,\)",
        ),
        (LATENTS, torch.eye(3), {"values": [1.0]}, "number of values must be at least 2, got 1"),
        (LATENTS, torch.eye(3), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(latents, directions, options, message):
    with pytest.raises(ValueError, match=message):
        activeness(linear, latents, directions, **options)


def test_bad_images_are_refused():
    with pytest.raises(ValueError, match=r"shape \(9, C, H, W\), got .* of shape \(9, 3\)"):
        activeness(lambda z: z, LATENTS[:3], torch.eye(3)[:1])
    with pytest.raises(ValueError, match="finite"):
        activeness(lambda z: linear(z).log(), LATENTS, torch.eye(3))
