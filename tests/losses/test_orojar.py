import pytest
import torch
from torch.func import jacrev

from disentangle.losses.directional_derivatives import rademacher_directions
from disentangle.losses.orojar import jacobian_variances, orojar
from disentangle.models import SimpleGAN
from disentangle.training.gan.feature_hooks import record_layers
from disentangle.training.gan.parametrize_cache import hold_weights

BOTH = pytest.mark.parametrize("difference", ["finite", "exact"])


def published(outputs, z, directions, epsilon=0.1):
    """The loss as the published code has it: a decode at a time, a maximum for each output."""
    base = outputs(z)
    norms = []
    for x in directions:
        firsts = [(a - b) / epsilon for a, b in zip(outputs(z + epsilon * x), base, strict=True)]
        norms.append([torch.einsum("ni,ni->n", f.flatten(1), f.flatten(1)) for f in firsts])
    return sum(torch.stack(layer).var(0, unbiased=True).max() for layer in zip(*norms, strict=True))


def all_pairs(latents):
    """Every pair of sign vectors, as directions `(2, 4^latents, latents)`."""
    numbers = torch.cartesian_prod(*[torch.tensor([0.25, 0.75])] * (2 * latents)).double()
    return rademacher_directions(numbers, torch.eye(latents, dtype=torch.double))


def off_diagonal(J):
    """`2 Σ_{i≠j} (J_i·J_j)²` of a Jacobian `(M, D)`."""
    gram = J.T @ J
    return 2 * (gram - gram.diagonal().diag()).square().sum()


@BOTH
def test_a_linear_map_with_orthogonal_columns_costs_nothing(difference):
    columns = torch.linalg.qr(torch.randn(20, 5).double()).Q * torch.tensor([1, 2, 3, 4, 0.0])
    z, directions = torch.randn(7, 5).double(), torch.randn(3, 7, 5).sign().double()
    assert orojar(lambda z: z @ columns.T, z, directions, difference=difference) < 1e-20
    # Not so for normal directions, which see the length of the columns.
    normal = torch.randn_like(directions)
    assert orojar(lambda z: z @ columns.T, z, normal, difference=difference) > 1


@BOTH
def test_the_mean_estimate_of_any_linear_map(difference):
    columns = torch.randn(6, 3).double()
    directions = all_pairs(3)
    z = torch.randn(directions.shape[1], 3).double()
    (variances,) = jacobian_variances(lambda z: z @ columns.T, z, directions, difference=difference)
    torch.testing.assert_close(variances.mean(), off_diagonal(columns))


def test_the_mean_exact_estimate_of_a_curved_map():
    decode = lambda z: torch.stack([z[:, 0].sin() * z[:, 1], z.prod(1), z[:, 1].exp()], 1)  # noqa: E731
    directions = all_pairs(2)
    z = torch.randn(1, 2).double()
    many = z.expand(directions.shape[1], 2)
    (variances,) = jacobian_variances(decode, many, directions, difference="exact")
    J = jacrev(lambda point: decode(point[None])[0])(z[0])
    torch.testing.assert_close(variances.mean(), off_diagonal(J))


def test_finite_differences_count_curvature_as_well():
    decode = lambda z: torch.cat([z[:, :1], z[:, 1:], z.prod(1, keepdim=True)], 1)  # noqa: E731
    z, directions = torch.zeros(16, 2).double(), all_pairs(2)
    exact = orojar(decode, z, directions, difference="exact")
    assert exact == 0  # at 0 the columns are orthogonal
    (finite,) = jacobian_variances(decode, z + 1, directions, epsilon=0.1)
    (limit,) = jacobian_variances(decode, z + 1, directions, difference="exact")
    assert (finite - limit).abs().max() > 0.1
    (close,) = jacobian_variances(decode, z + 1, directions, epsilon=1e-6)
    torch.testing.assert_close(close, limit, atol=1e-4, rtol=0)


@pytest.mark.parametrize("image_only", [True, False])
def test_it_is_the_published_loss(image_only):
    model = SimpleGAN(image_size=64, latent_dim=4, base_channels=2).double()
    layers = ["latent_projection", "convolutions.0", "convolutions.1"]
    decode = model.decode if image_only else record_layers(model.decode, model, layers)
    outputs = (lambda z: (decode(z),)) if image_only else decode
    z = model.sample_latents(3).double()
    directions = torch.randn(2, 3, 4).sign().double()
    losses = orojar(decode, z, directions), published(outputs, z, directions)
    torch.testing.assert_close(*losses)
    weight = model.latent_projection.weight
    torch.testing.assert_close(*(torch.autograd.grad(loss, weight)[0] for loss in losses))


@BOTH
def test_an_orthogonal_first_layer_costs_nothing(difference):
    costs = {}
    for pre_svd_weight in ("free", "orthogonal"):
        model = SimpleGAN(
            image_size=64, latent_dim=6, base_channels=2, pre_svd_weight=pre_svd_weight
        )
        first = record_layers(model.decode, model, ["latent_projection"])
        z, directions = model.sample_latents(5), torch.randn(2, 5, 6).sign()
        with hold_weights(model):
            costs[pre_svd_weight] = orojar(first, z, directions, difference=difference)
    assert costs["orthogonal"] < 1e-6 < 1e-3 * costs["free"]


@BOTH
def test_training_a_linear_map_makes_its_columns_orthogonal(difference):
    weight = torch.nn.Parameter(torch.randn(4, 10, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.Adam([weight], lr=0.02)

    def cosine():
        gram = torch.corrcoef(torch.cat([weight, -weight], 1).detach())
        return (gram - torch.eye(4)).abs().max()

    start = cosine()
    for _ in range(300):
        z, directions = torch.randn(16, 4), torch.randn(2, 16, 4).sign()
        loss = orojar(lambda z: z @ weight, z, directions, difference=difference, reduction="mean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert cosine() < 0.1 * start
    assert weight.detach().norm(dim=1).min() > 0.5


def test_reductions():
    columns = torch.randn(3, 2)
    decode = lambda z: [z @ columns.T, (z @ columns.T).sin()]  # noqa: E731
    z, directions = torch.randn(6, 2), torch.randn(3, 6, 2).sign()
    a, b = jacobian_variances(decode, z, directions)
    assert a.shape == b.shape == (6,)
    assert torch.equal(orojar(decode, z, directions), a.max() + b.max())
    mean = orojar(decode, z, directions, reduction="mean")
    torch.testing.assert_close(mean, a.mean() + b.mean())
    with pytest.raises(ValueError, match="max or mean, got 'none'"):
        orojar(decode, z, directions, reduction="none")


@BOTH
def test_no_host_synchronisation(difference, count_scalars):
    model = SimpleGAN(image_size=64, latent_dim=4, base_channels=1)
    decode = record_layers(model.decode, model, ["latent_projection", "convolutions.0"])
    z, numbers = model.sample_latents(3), torch.rand(3, 8)
    with count_scalars() as count:
        directions = rademacher_directions(numbers, torch.eye(4))
        orojar(decode, z, directions, difference=difference).backward()
    assert count.calls == 0
