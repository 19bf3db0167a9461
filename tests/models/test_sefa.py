import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from disentangle.metrics import activeness, gaussian_total_correlation, variation_predictability
from disentangle.models import (
    EigenGAN,
    SimpleGAN,
    SubspaceVAE,
    rotate_latents,
    sefa_axes,
    unrotate_latents,
)
from disentangle.models.sefa import factorize
from disentangle.traversal import traverse


class Images(nn.Module):
    """A user's own generator of 4 × 4 images, linear up to tanh."""

    def __init__(self, layer, latent_dim):
        super().__init__()
        self.layer, self.latent_dim = layer, latent_dim

    def sample_latents(self, n, generator=None):
        return torch.randn(n, self.latent_dim, generator=generator)

    def decode(self, z):
        return self.layer(z).view(-1, 1, 16, 16).tanh()


def linear(weight, **more):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return Images(layer, more.get("latent_dim", weight.shape[1]))


def stack(axes):
    return torch.stack([axis.direction for axis in axes])


def random_matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


# The factorization


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 12), st.integers(0, 10**6))
def test_directions_are_a_rotation_and_singular_values_descend(rows, columns, rank, seed):
    left, right = random_matrix(rows, rank, seed), random_matrix(rank, columns, seed + 1)
    matrix = (left @ right).double()
    found = factorize(matrix)
    V, S = found.directions.T, found.singular_values
    torch.testing.assert_close(V.T @ V, torch.eye(columns).double(), atol=1e-12, rtol=0)
    assert (S.diff() <= 0).all()
    assert (S >= 0).all()
    scale = 1 + S[0]
    torch.testing.assert_close((matrix @ V).norm(dim=0) / scale, S / scale, atol=1e-7, rtol=0)
    expected = np.zeros(columns)
    values = np.linalg.svd(matrix.numpy(), compute_uv=False)[:columns]
    expected[: len(values)] = values
    np.testing.assert_allclose(S, expected, atol=1e-12 * scale)


def test_is_the_eigendecomposition_of_the_paper():
    A = random_matrix(50, 6).double()
    found = factorize(A)
    lambdas, vectors = np.linalg.eigh((A.T @ A).numpy())
    np.testing.assert_allclose(found.singular_values**2, lambdas[::-1], rtol=1e-10)
    cosines = np.abs((found.directions.numpy() * vectors[:, ::-1].T).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, rtol=1e-10)


def test_normalised_axes_are_those_of_the_published_code():
    """Whose `weight` is the transpose of `A`, and whose directions may have any sign."""
    A = random_matrix(50, 6) * torch.linspace(0.1, 5, 50)[:, None]
    weight = A.double().numpy().T
    weight = weight / np.linalg.norm(weight, axis=0, keepdims=True)
    lambdas, vectors = np.linalg.eig(weight.dot(weight.T))
    order = np.argsort(-lambdas)
    axes = sefa_axes(linear(A), "layer", normalise=True)
    cosines = np.abs((stack(axes).numpy() * vectors.T[order]).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)
    gains = [float(axis.name.partition("gain ")[2].rstrip(")")) for axis in axes]
    np.testing.assert_allclose(gains, np.sqrt(lambdas[order]), rtol=0.01)
    assert {axis.group for axis in axes} == {"normalised SeFa of layer"}
    plain = stack(sefa_axes(linear(A), "layer"))
    assert (stack(axes) * plain).sum(dim=1).abs().min() < 0.99


def test_an_output_without_weights_says_nothing_of_directions():
    A = random_matrix(8, 3)
    padded = torch.cat([A, torch.zeros(2, 3)])
    expected = stack(sefa_axes(linear(A), "layer", normalise=True))
    found = stack(sefa_axes(linear(padded), "layer", normalise=True))
    torch.testing.assert_close(found, expected)


def test_diagonal_layer_is_sorted():
    found = factorize(torch.diag(torch.tensor([1.0, -4.0, 0.0, 2.0])))
    assert found.singular_values.tolist() == [4, 2, 1, 0]
    assert found.directions.tolist() == torch.eye(4)[[1, 3, 0, 2]].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sign_and_the_rest_of_the_network_do_not_matter(dtype):
    A = random_matrix(30, 5).to(dtype)
    found = factorize(A)
    assert found.directions.dtype == dtype
    largest = found.directions.gather(1, found.directions.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()
    # what follows the layer, orthogonal or a change of sign, or the order of its features
    for other in (-A, A.flip(0), torch.linalg.qr(random_matrix(30, 30).to(dtype)).Q @ A):
        torch.testing.assert_close(factorize(other).directions, found.directions)
    rotation = torch.linalg.qr(random_matrix(5, 5).to(dtype)).Q
    rotated = factorize(A @ rotation).directions
    cosines = (rotated * (found.directions @ rotation)).sum(dim=1).abs()
    torch.testing.assert_close(cosines, torch.ones(5, dtype=dtype))


def test_the_sign_of_equal_entries_is_that_of_the_first():
    half = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5
    for noise in (-1e-8, 1e-8):
        found = factorize(torch.tensor([3.0, 1.0]).double().diag() @ (half.double() + noise))
        assert (found.directions[:, 0] > 0).all()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(3), r"a matrix \(out, D\), got torch.float32 of shape \(3,\)"),
        (torch.ones(3, 0), r"got torch.float32 of shape \(3, 0\)"),
        (torch.ones(3, 2).long(), "got torch.int64"),
        (torch.full((3, 2), torch.nan), "finite numbers, got NaN"),
    ],
)
def test_bad_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        factorize(matrix)


# Layers of generators


def check_gains(axes, respond):
    """Whether a unit step along each axis changes the first features by the singular value."""
    directions = stack(axes)
    zero = respond(torch.zeros_like(directions))
    changes = (respond(directions) - zero).detach().flatten(1)
    gains = changes.norm(dim=1)
    printed = [float(axis.name.partition("gain ")[2].rstrip(")")) for axis in axes]
    np.testing.assert_allclose(gains, printed, rtol=6e-3, atol=1e-5)
    # changes of orthogonal directions are orthogonal too: that makes them singular
    gram = changes @ changes.T
    torch.testing.assert_close(gram, gains.square().diag(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kept", ["free", "orthogonal", "spectral"])
def test_our_own_generators_know_their_first_layer(kept):
    vae = SubspaceVAE(image_size=32, code_dim=4, pre_svd_weight=kept)
    with torch.no_grad():
        vae.decoder.subspaces[0].L.copy_(torch.tensor([1.0, 3.0, -2.0, 0.5]))
    vae.train()
    state = {name: value.clone() for name, value in vae.state_dict().items()}
    axes = sefa_axes(vae)
    assert vae.training
    for name, value in vae.state_dict().items():
        assert torch.equal(value, state[name]), name
    check_gains(axes, vae.eval().decoder.subspaces[0])
    assert {axis.group for axis in axes} == {"SeFa of decoder.subspaces.0"}
    gan = SimpleGAN(image_size=64, latent_dim=5, base_channels=4, pre_svd_weight=kept).eval()
    check_gains(sefa_axes(gan), lambda z: gan.latent_projection(z[:, :, None, None]))
    assert all(axis.std == 1 for axis in sefa_axes(gan))


def test_a_look_at_a_constrained_weight_changes_nothing():
    model = linear(random_matrix(9, 4))
    nn.utils.parametrizations.spectral_norm(model.layer)  # in training mode, a look moves buffers
    model.layer.parametrizations.weight.original.data = random_matrix(9, 4, seed=1)
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    axes = sefa_axes(model, "layer")
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert model.layer.parametrizations.weight.training
    check_gains(axes, model.eval().layer)
    assert torch.equal(stack(sefa_axes(model, "layer.weight")), stack(axes))


def test_a_layer_is_named_by_itself_or_by_its_weight():
    gan = SimpleGAN(image_size=64, latent_dim=5, base_channels=4)
    expected = stack(sefa_axes(gan))
    for name in ("latent_projection", "latent_projection.weight"):
        assert torch.equal(stack(sefa_axes(gan, name)), expected)
    assert torch.equal(stack(sefa_axes(gan, count=2)), expected[:2])


def test_ranks_are_in_the_names():
    model = linear(torch.diag(torch.tensor([1.0, 20.0, 0.5])))
    axes = sefa_axes(model, "layer")
    assert [axis.name for axis in axes] == [
        "rank 1 (gain 20)",
        "rank 2 (gain 1)",
        "rank 3 (gain 0.5)",
    ]


def test_a_layer_that_takes_in_a_part_of_the_latents():
    gan = EigenGAN(image_size=32, base_channels=4, noise_dim=8, basis_dim=3)
    axes = sefa_axes(gan, "noise_projection", offset=0)
    assert stack(axes).shape == (8, gan.latent_dim)
    assert (stack(axes)[:, 8:] == 0).all()
    check_gains(axes, lambda z: gan.noise_projection(z[:, :8]))


def test_the_bases_of_an_eigengan_need_no_sefa():
    gan = EigenGAN(image_size=32, base_channels=4, noise_dim=8, basis_dim=3)
    with pytest.raises(ValueError, match="EigenGAN takes in its latents at several layers"):
        sefa_axes(gan)
    with pytest.raises(ValueError, match="at several layers"):
        sefa_axes(gan, offset=8)  # the offset of a layer that nobody named
    found = stack(sefa_axes(gan, "blocks.1.subspace", offset=8 + 3))
    own = stack([axis for axis in gan.axes if axis.group == "block 1"])
    torch.testing.assert_close(found, own, atol=1e-5, rtol=0)  # L descends


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "first_layer must name the layer of Images .*; there is layer"),
        ({"first_layer": "layers"}, "is named 'layers'; there is layer"),
        ({"first_layer": "layer.bias"}, "is named 'layer.bias'; there is layer"),
        ({"first_layer": ""}, "is named ''; there is layer"),
        ({"first_layer": "layer", "count": 0}, "count must be between 1 and 3, got 0"),
        ({"first_layer": "layer", "count": 4}, "count must be between 1 and 3, got 4"),
        ({"first_layer": "layer", "offset": 1}, "offset must be between 0 and 0, got 1"),
    ],
)
def test_bad_choices_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sefa_axes(linear(torch.eye(3)), **options)


def test_bad_generators_are_refused():
    with pytest.raises(ValueError, match="'layer' takes in 3 of 5 latents: offset must say which"):
        sefa_axes(linear(torch.eye(3), latent_dim=5), "layer")
    with pytest.raises(ValueError, match="3 of 5 latents: offset must be between 0 and 2, got -1"):
        sefa_axes(linear(torch.eye(3), latent_dim=5), "layer", offset=-1)
    with pytest.raises(ValueError, match="there are 2, got 'layer', which takes in 3"):
        sefa_axes(linear(torch.eye(3), latent_dim=2), "layer")
    with pytest.raises(ValueError, match="Linear must have a latent_dim, got None"):
        sefa_axes(nn.Linear(2, 2), "weight")
    for options in ({"groups": 3}, {"padding": 1}):
        layer = nn.ConvTranspose2d(3, 6, 4, **options)
        with pytest.raises(ValueError, match="must have 1 group and no padding"):
            sefa_axes(Images(layer, 3), "layer")
    with pytest.raises(ValueError, match=r"no layer of kind .*; there is none"):
        sefa_axes(Images(nn.Conv2d(3, 6, 1), 3), "layer")


# What takes the axes


def test_rotation_and_back():
    axes = sefa_axes(linear(random_matrix(9, 4)), "layer")
    z = random_matrix(6, 4, seed=1)
    codes = rotate_latents(z, axes)
    torch.testing.assert_close(codes, z @ stack(axes).T)
    torch.testing.assert_close(codes.norm(dim=1), z.norm(dim=1))
    torch.testing.assert_close(unrotate_latents(codes, axes), z)
    some = rotate_latents(z, axes[:2])
    torch.testing.assert_close(rotate_latents(unrotate_latents(some, axes[:2]), axes[:2]), some)


@pytest.mark.parametrize(
    ("move", "vectors", "message"),
    [
        (rotate_latents, torch.ones(4), r"latents \(N, 4\), got \(4,\)"),
        (rotate_latents, torch.ones(2, 3), r"latents \(N, 4\), got \(2, 3\)"),
        (unrotate_latents, torch.ones(2, 4), r"coordinates \(N, 3\), got \(2, 4\)"),
    ],
)
def test_bad_rotations_are_refused(move, vectors, message):
    axes = sefa_axes(linear(random_matrix(9, 4)), "layer", count=3)
    with pytest.raises(ValueError, match=message):
        move(vectors, axes)
    with pytest.raises(ValueError, match="at least one axis, got none"):
        move(vectors, [])


def entangled_stripes():
    """Images that two orthogonal patterns make, out of latents rotated by 45°."""
    stripes = torch.linspace(0, 40, 256).sin().view(16, 16)
    patterns = torch.stack([stripes.flatten(), 0.7 * stripes.T.flatten()])
    rotation = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5
    return linear(0.5 * patterns.T @ rotation), rotation


def test_metrics_and_traversals_take_the_axes():
    model, rotation = entangled_stripes()
    axes = sefa_axes(model, "layer")
    torch.testing.assert_close(
        (stack(axes) @ rotation.T).abs(), torch.eye(2), atol=2e-2, rtol=0
    )  # the two patterns overlap by a little
    z = model.sample_latents(20, torch.Generator().manual_seed(0))
    result = activeness(model.decode, z, stack(axes), std=[axis.std for axis in axes])
    assert result.per_axis[0] > 1.5 * result.per_axis[1]
    frames = traverse(model.decode, z[:1], axes, values=[-2.0, 2.0])
    assert frames.shape == (2, 1, 2, 1, 16, 16)
    codes = rotate_latents(model.sample_latents(500), axes)
    assert gaussian_total_correlation(codes).score < 0.05


def test_single_coordinates_can_be_moved_along_the_axes():
    model, _ = entangled_stripes()
    axes = sefa_axes(model, "layer")
    seen = []

    def decode(y):
        z = unrotate_latents(y, axes)
        seen.append(z)
        return model.decode(z)

    few = {"pairs": 120, "test_ratio": 0.5, "epochs": 4, "width": 4, "seeds": [0]}
    result = variation_predictability(decode, model.sample_latents, **few)
    assert result.confusion.sum() == 60
    for pairs in seen:
        before, after = pairs.chunk(2)
        moved = rotate_latents(after - before, axes).abs() > 1e-5
        assert (moved.sum(dim=1) <= 1).all()
