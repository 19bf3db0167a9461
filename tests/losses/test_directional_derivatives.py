import pytest
import torch
from torch.func import hessian, jacrev

from disentangle.losses.directional_derivatives import (
    first_derivatives,
    rademacher_directions,
    second_derivatives,
    sum_of_layers,
)
from disentangle.models import EigenGAN, SimpleGAN
from disentangle.orthogonality import WEIGHT_CONSTRAINTS
from disentangle.training.gan.parametrize_cache import hold_weights

BOTH = pytest.mark.parametrize("derivatives", [first_derivatives, second_derivatives])


def smooth(z):
    """Two outputs `(n, 2)` and `(n,)`, one of them of two dimensions."""
    return torch.stack([z[:, 0].sin() * z[:, 1], z[:, 2].exp()], 1), (z**3).sum(1) * z[:, 0]


def points(n=4, k=3, dtype=torch.double):
    return torch.randn(n, 3, dtype=dtype), torch.randn(k, n, 3, dtype=dtype)


def one(index):
    return lambda point: smooth(point[None])[index][0]


def test_exact_derivatives_are_the_jacobian_and_the_hessian():
    z, directions = points()
    firsts = first_derivatives(smooth, z, directions, difference="exact")
    seconds = second_derivatives(smooth, z, directions, difference="exact")
    for i, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        for k in range(3):
            for n in range(4):
                x = directions[k, n]
                torch.testing.assert_close(first[k, n], jacrev(one(i))(z[n]) @ x)
                torch.testing.assert_close(second[k, n], hessian(one(i))(z[n]) @ x @ x)


@BOTH
def test_finite_differences_approach_the_exact_ones(derivatives):
    z, directions = points()
    exact = derivatives(smooth, z, directions, difference="exact")
    errors = []
    for epsilon in (0.02, 0.01):
        finite = derivatives(smooth, z, directions, epsilon=epsilon)
        assert [f.shape for f in finite] == [(3, 4, 2), (3, 4)]
        errors.append(max((f - e).abs().max() for f, e in zip(finite, exact, strict=True)))
    # The forward difference is of the first order in ε, the central one of the second.
    order = (errors[0] / errors[1]).log2().item()
    assert order == pytest.approx(1 if derivatives is first_derivatives else 2, abs=0.1)


@BOTH
def test_finite_differences_are_those_of_the_published_code(derivatives):
    model = SimpleGAN(image_size=64, latent_dim=5, base_channels=1)
    z, directions = model.sample_latents(3), torch.randn(2, 3, 5).sign()
    with torch.no_grad():
        (found,) = derivatives(model.decode, z, directions)
        for x, slope in zip(directions, found, strict=True):
            ahead, here, behind = (model.decode(z + s * 0.1 * x) for s in (1, 0, -1))
            if derivatives is first_derivatives:
                expected = (ahead - here) / 0.1
            else:
                expected = (ahead - 2 * here + behind) / 0.01
            torch.testing.assert_close(slope, expected, atol=1e-3, rtol=0)


def tiny(kind, pre_svd_weight="free"):
    if kind == "simple":
        shape = {"image_size": 64, "latent_dim": 5, "base_channels": 1}
        return SimpleGAN(**shape, pre_svd_weight=pre_svd_weight).double()
    shape = {"image_size": 32, "base_channels": 2, "noise_dim": 3}
    return EigenGAN(**shape, pre_svd_weight=pre_svd_weight).double()


@BOTH
@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
@pytest.mark.parametrize("kind", ["simple", "eigen"])
def test_every_layer_of_our_generators_has_exact_derivatives(derivatives, pre_svd_weight, kind):
    model = tiny(kind, pre_svd_weight)
    z = model.sample_latents(2).double().requires_grad_()
    directions = torch.randn(2, *z.shape, dtype=torch.double).sign()
    with hold_weights(model):
        (exact,) = derivatives(model.decode, z, directions, difference="exact")
        images = model.decode(z)
    # A reference in reverse mode. Finite differences are none: they see kinks, as it does not.
    projection = torch.randn(images.shape, dtype=torch.double)
    (slope,) = torch.autograd.grad((images * projection).sum(), z, create_graph=True)
    for x, derivative in zip(directions, exact, strict=True):
        expected = (slope * x).sum()
        if derivatives is second_derivatives:
            (curvature,) = torch.autograd.grad(expected, z, retain_graph=True)
            expected = (curvature * x).sum()
        torch.testing.assert_close((derivative * projection).sum(), expected)


@BOTH
@pytest.mark.parametrize("difference", ["finite", "exact"])
@pytest.mark.parametrize("kind", ["simple", "eigen"])
def test_the_gradient_by_the_weights_of_our_generators(derivatives, difference, kind):
    model = tiny(kind)
    z = model.sample_latents(2).double()
    directions = torch.randn(2, *z.shape, dtype=torch.double).sign()
    projection = torch.randn(2, *model.decode(z).shape, dtype=torch.double)

    def loss():
        (derivative,) = derivatives(model.decode, z, directions, difference=difference)
        return (derivative * projection).sum()

    loss().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    moves = [torch.randn_like(parameter) for parameter in model.parameters()]
    slope = sum((p.grad * m).sum() for p, m in zip(model.parameters(), moves, strict=True))
    step, losses = 1e-7, []
    for sign in (1, -2):  # so small a step that no kink is crossed
        torch._foreach_add_([p.data for p in model.parameters()], moves, alpha=sign * step)
        losses.append(loss().item())
    assert slope.item() == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4)


def test_exact_products_need_held_weights():
    model = SimpleGAN(image_size=64, latent_dim=5, base_channels=1, pre_svd_weight="spectral")
    z = model.sample_latents(2)
    with pytest.raises(RuntimeError, match="in-place"):
        first_derivatives(model.decode, z, torch.ones(2, 2, 5), difference="exact")


@BOTH
@pytest.mark.parametrize("difference", ["finite", "exact"])
def test_the_gradient_by_the_weights(derivatives, difference):
    z, directions = points(n=2, k=2)

    def function(weight, bias):
        def decode(points):
            return (points @ weight + bias).tanh()

        return derivatives(decode, z, directions, difference=difference)[0]

    arguments = torch.randn(3, 2, dtype=torch.double), torch.randn(2, dtype=torch.double)
    assert torch.autograd.gradcheck(function, [a.requires_grad_() for a in arguments])


@BOTH
@pytest.mark.parametrize("difference", ["finite", "exact"])
def test_inputs_may_be_expanded(derivatives, difference):
    z, directions = torch.ones(1, 3).expand(4, 3), torch.ones(1, 1, 3).expand(2, 4, 3)
    found = derivatives(smooth, z, directions, difference=difference)
    expected = derivatives(smooth, z.clone(), directions.clone(), difference=difference)
    torch.testing.assert_close(found, expected)


def test_autocast_is_off_inside():
    linear = torch.nn.Linear(3, 2)
    z, directions = points(dtype=torch.float32)
    expected = first_derivatives(linear, z, directions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(first_derivatives(linear, z, directions)[0], expected[0])
        exact = first_derivatives(linear, z, directions, difference="exact")
    torch.testing.assert_close(exact, expected, atol=1e-4, rtol=0)


@BOTH
@pytest.mark.parametrize("difference", ["finite", "exact"])
def test_bad_input(derivatives, difference):
    z, directions = points()

    def fail(match, decode=smooth, z=z, directions=directions, epsilon=0.1):
        with pytest.raises(ValueError, match=match):
            derivatives(decode, z, directions, epsilon=epsilon, difference=difference)

    fail(r"\(N, D\) and single or double precision, got torch.bfloat16", z=z.bfloat16())
    fail(r"got torch.float64 of shape \(4, 3, 1\)", z=z[..., None])
    fail(r"\(k, 4, 3\) with k ≥ 2, got \(1, 4, 3\)", directions=directions[:1])
    fail(r"\(k, 4, 3\) with k ≥ 2, got \(3, 4, 2\)", directions=directions[..., :2])
    fail(r"\(k, 4, 3\) with k ≥ 2, got \(3, 3, 3\)", directions=directions[:, :3])
    fail("epsilon must be positive, got 0", epsilon=0)
    fail("epsilon must be positive, got nan", epsilon=float("nan"))
    fail("at least one output, got none", decode=lambda z: [])
    fail(r"single or double precision, got torch.bfloat16", decode=lambda z: z.bfloat16())
    fail(r"decode must give outputs \(\d+, …\).*of shape \(2, 3\)", decode=lambda z: z[:2])
    fail(r"decode must give outputs.* of shape \(\)", decode=lambda z: z.sum())


@BOTH
def test_an_unknown_difference(derivatives):
    with pytest.raises(ValueError, match="finite or exact, got 'central'"):
        derivatives(smooth, *points(), difference="central")


def test_directions_are_signs_along_the_axes():
    axes = torch.linalg.qr(torch.randn(5, 5)).Q[:3]
    directions = rademacher_directions(torch.rand(200, 2 * 3), axes)
    assert directions.shape == (2, 200, 5)
    signs = directions @ axes.T
    torch.testing.assert_close(signs.abs(), torch.ones(2, 200, 3))
    assert (signs.mean((0, 1)).abs() < 0.2).all()
    # Nothing off the axes.
    torch.testing.assert_close(signs @ axes, directions)


def test_each_sample_has_its_own_numbers():
    numbers = torch.rand(4, 2 * 3)
    directions = rademacher_directions(numbers, torch.eye(3))
    assert torch.equal(directions[0], torch.where(numbers[:, :3] < 0.5, -1.0, 1.0))
    assert torch.equal(directions[1], torch.where(numbers[:, 3:] < 0.5, -1.0, 1.0))
    assert torch.equal(rademacher_directions(numbers[1:], torch.eye(3)), directions[:, 1:])


def test_bad_directions():
    with pytest.raises(ValueError, match=r"\(N, k · 3\), got \(4, 5\)"):
        rademacher_directions(torch.rand(4, 5), torch.eye(3))
    with pytest.raises(ValueError, match=r"\(N, k · 3\), got \(4, 0\)"):
        rademacher_directions(torch.rand(4, 0), torch.eye(3))
    with pytest.raises(ValueError, match=r"\(A, D\) with A ≥ 1, got \(0, 3\)"):
        rademacher_directions(torch.rand(4, 6), torch.eye(3)[:0])


def test_reductions():
    layers = [torch.tensor([1.0, 3.0]), torch.tensor([[2.0, 8.0]])]
    assert sum_of_layers(layers, "max") == 3 + 8
    assert sum_of_layers(layers, "mean") == 2 + 5
    with pytest.raises(ValueError, match="max or mean, got 'sum'"):
        sum_of_layers(layers, "sum")
