import pytest
import torch

from disentangle.traversal import invert

GRID = torch.linspace(-1, 1, 16)
DRAWS = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))


def draw_discs(z):
    """Discs of 16 px whose place and size follow the latents."""
    x, y, radius = (z[:, i, None, None].tanh() for i in range(3))
    distance = ((GRID - x / 2) ** 2 + (GRID[:, None] - y / 2) ** 2 + 1e-6).sqrt()
    return (8 * (0.4 + radius / 5 - distance)).tanh()[:, None]


def test_the_latents_of_images_that_can_be_made_are_found():
    z = torch.tensor([[0.8, -0.5, 0.3], [-1.0, 0.2, -0.4]])
    found = invert(draw_discs, draw_discs(z), DRAWS, prior_weight=0.0)
    torch.testing.assert_close(found.latents, z, atol=0.02, rtol=0)
    assert found.errors.max() < 1e-4
    torch.testing.assert_close(found.images, draw_discs(found.latents))
    assert not found.latents.requires_grad
    assert not found.images.requires_grad


def test_it_is_better_than_the_best_draw_and_reports_its_error():
    image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = invert(draw_discs, image, DRAWS, prior_weight=0.0, steps=50)
    errors = (draw_discs(DRAWS) - image).square().flatten(1).mean(dim=1)
    assert found.errors.item() < errors.min()
    assert found.errors.item() == pytest.approx((found.images - image).square().mean().item())


def test_the_prior_keeps_latents_near_the_mean():
    image = draw_discs(torch.tensor([[0.8, -0.5, 2.5]]))
    near, far = (
        invert(draw_discs, image, DRAWS, prior_weight=weight, steps=100).latents.norm()
        for weight in (0.3, 0.0)
    )
    assert near < 0.9 * far


def test_an_image_inverts_alike_alone_and_among_others():
    images = draw_discs(DRAWS[:2] / 2)
    together = invert(draw_discs, images, DRAWS, steps=10)
    alone = invert(draw_discs, images[1:], DRAWS, steps=10)
    torch.testing.assert_close(together.latents[1:], alone.latents)


def test_parameters_get_no_gradient():
    layer = torch.nn.Linear(3, 3)
    invert(lambda z: draw_discs(layer(z)), draw_discs(DRAWS[:1]), DRAWS, steps=2)
    assert layer.weight.grad is None


IMAGE = torch.zeros(1, 1, 16, 16)


@pytest.mark.parametrize(
    ("image", "draws", "options", "message"),
    [
        (IMAGE[0], DRAWS, {}, r"images \(N, C, H, W\) .* got \(1, 16, 16\)"),
        (IMAGE, DRAWS[0], {}, r"draws \(M, D\) .* and \(3,\)"),
        (IMAGE, DRAWS[:0], {}, r"and \(0, 3\)"),
        (IMAGE[..., :8], DRAWS, {}, r"must have the shape \(N, 1, 16, 16\).*got \(1, 16, 8\)"),
        (IMAGE, DRAWS, {"steps": 0}, "at least one step"),
        (IMAGE, DRAWS, {"learning_rate": 0.0}, "a positive learning_rate"),
        (IMAGE, DRAWS, {"prior_weight": -1.0}, "a prior_weight from 0"),
    ],
)
def test_bad_input_is_refused(image, draws, options, message):
    with pytest.raises(ValueError, match=message):
        invert(draw_discs, image, draws, **options)
