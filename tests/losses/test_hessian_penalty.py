import pytest
import torch
from torch.func import hessian
from torch.nn import functional

from disentangle.losses.directional_derivatives import rademacher_directions
from disentangle.losses.hessian_penalty import hessian_penalty, hessian_variances
from disentangle.models import EigenGAN, SimpleGAN
from disentangle.training.gan.feature_hooks import record_layers

BOTH = pytest.mark.parametrize("difference", ["finite", "exact"])


def published(outputs, z, directions, epsilon=0.1):
    """The loss as the published code has it: a decode at a time, a maximum for each output."""
    seconds = [
        [
            (ahead - 2 * here + behind) / epsilon**2
            for ahead, here, behind in zip(
                outputs(z + epsilon * x), outputs(z), outputs(z - epsilon * x), strict=True
            )
        ]
        for x in directions
    ]
    return sum(
        torch.stack(layer).var(0, unbiased=True).max() for layer in zip(*seconds, strict=True)
    )


def all_signs(draws, latents):
    """Every choice of `draws` sign vectors, as directions `(draws, 2^(draws·latents), latents)`."""
    numbers = torch.cartesian_prod(*[torch.tensor([0.25, 0.75])] * (draws * latents)).double()
    return rademacher_directions(numbers, torch.eye(latents, dtype=torch.double))


@BOTH
@pytest.mark.parametrize("draws", [2, 3])
def test_known_answer(difference, draws):
    directions = all_signs(draws, latents=2)
    z = torch.tensor([[-1.5, 0.7]], dtype=torch.double).expand(directions.shape[1], 2)
    first, second = hessian_variances(
        lambda z: [z[:, 0] * z[:, 1], z[:, 0] ** 2 * z[:, 1]], z, directions, difference=difference
    )
    assert first.mean().item() == pytest.approx(4)
    assert second.mean().item() == pytest.approx(16 * 1.5**2)
    if draws == 2:  # a single estimate is 0 or twice the answer
        assert all(
            value == pytest.approx(0) or value == pytest.approx(8) for value in first.tolist()
        )


@BOTH
def test_the_mean_estimate_is_the_off_diagonal_of_the_hessian(difference):
    weight = torch.randn(3, 4, dtype=torch.double)

    def decode(z):
        return (z @ weight).square() * z[:, :1]  # of the third order: no error of the differences

    directions = all_signs(draws=2, latents=3)
    z = torch.randn(1, 3, dtype=torch.double)
    many = z.expand(directions.shape[1], 3)
    (variances,) = hessian_variances(decode, many, directions, difference=difference)
    H = hessian(lambda point: decode(point[None])[0])(z[0])  # (4, 3, 3)
    off_diagonal = H - torch.diag_embed(H.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(variances.mean(0), 2 * off_diagonal.square().sum((1, 2)))


@BOTH
def test_functions_without_interaction_cost_nothing(difference):
    z, directions = torch.randn(6, 3).double(), torch.randn(4, 6, 3).sign().double()
    decode = lambda z: [z.sin(), (z**2).sum(1), z @ torch.ones(3, 5).double()]  # noqa: E731
    assert hessian_penalty(decode, z, directions, difference=difference) < 1e-20
    # Normal directions see the diagonal, which signs do not.
    assert hessian_penalty(decode, z, torch.randn(4, 6, 3).double(), difference=difference) > 0.1


@pytest.mark.parametrize("image_only", [True, False])
def test_it_is_the_published_loss(image_only):
    model = SimpleGAN(image_size=64, latent_dim=4, base_channels=2).double()
    layers = ["latent_projection", "convolutions.0", "convolutions.1"]
    decode = model.decode if image_only else record_layers(model.decode, model, layers)
    outputs = (lambda z: (decode(z),)) if image_only else decode
    z = model.sample_latents(3).double()
    directions = torch.randn(2, 3, 4).sign().double()
    losses = hessian_penalty(decode, z, directions), published(outputs, z, directions)
    torch.testing.assert_close(*losses)
    weights = model.latent_projection.weight
    torch.testing.assert_close(*(torch.autograd.grad(loss, weights)[0] for loss in losses))


def test_latents_that_are_left_alone_do_not_count():
    z = torch.randn(5, 3)
    decode = lambda z: z[:, 0] * z[:, 2] ** 2 + z[:, 1] * z[:, 2]  # noqa: E731
    first_two = rademacher_directions(torch.rand(5, 4 * 2), torch.eye(3)[:2])
    assert hessian_penalty(decode, z, first_two, difference="exact") == 0
    all_three = rademacher_directions(torch.rand(5, 4 * 3), torch.eye(3))
    assert hessian_penalty(decode, z, all_three, difference="exact") > 0.1


def test_mean_in_place_of_maximum():
    z, directions = torch.randn(6, 2), torch.randn(3, 6, 2).sign()
    decode = lambda z: torch.stack([z[:, 0] * z[:, 1], z[:, 0] ** 3 * z[:, 1]], 1)  # noqa: E731
    (variances,) = hessian_variances(decode, z, directions)
    assert torch.equal(hessian_penalty(decode, z, directions), variances.max())
    mean = hessian_penalty(decode, z, directions, reduction="mean")
    torch.testing.assert_close(mean, variances.mean())
    with pytest.raises(ValueError, match="max or mean, got 'median'"):
        hessian_penalty(decode, z, directions, reduction="median")


def test_the_exact_derivative_does_not_see_kinks():
    """Why the finite differences are the default."""
    model = EigenGAN(image_size=32, base_channels=2, noise_dim=3)
    features = record_layers(model.decode, model, ["blocks.2.feature_conv2"])
    z = model.sample_latents(4)
    directions = torch.randn(2, *z.shape).sign()
    assert hessian_penalty(features, z, directions, difference="exact") < 1e-12
    # Jumps of the slope over ε: what a kink adds grows with 1/ε, and fewer kinks are met.
    many = z.repeat(64, 1)
    many += 0.5 * torch.randn_like(many)
    signs = torch.randn(2, *many.shape).sign()
    coarse, fine = (
        hessian_penalty(features, many, signs, epsilon=epsilon, reduction="mean")
        for epsilon in (0.1, 0.025)
    )
    assert 2.5 < fine / coarse < 6


@BOTH
def test_training_lowers_it(difference):
    weight = torch.nn.Parameter(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.Adam([weight], lr=0.05)
    losses = []
    for _ in range(40):
        z, directions = torch.randn(16, 2), torch.randn(2, 16, 2).sign()
        loss = hessian_penalty(
            lambda z: functional.normalize(weight, dim=1)[0] * z[:, :1] * z[:, 1:] * weight[1],
            z,
            directions,
            difference=difference,
            reduction="mean",
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])
