import pytest
import torch
from torch import nn

from disentangle.adapters import adapt, adapt_stylegan, style_axes
from disentangle.metrics import activeness
from disentangle.models import Generator

D, W = 3, 5


class Mapping(nn.Module):
    """As NVIDIA's: takes a condition too, and gives `w` once for every layer."""

    def __init__(self, num_ws):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(D, W), nn.LeakyReLU(0.2))
        self.num_ws = num_ws

    def forward(self, z, c):
        assert c is None
        w = self.layers(z)
        return w if self.num_ws is None else w[:, None].repeat(1, self.num_ws, 1)


class Affine(nn.Module):
    """A linear layer of a class that nobody knows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, W))

    def forward(self, w):
        return w @ self.weight.T / W**0.5


class Synthesis(nn.Module):
    """Each of two layers adds its style; `ws (N, 2, W)`."""

    def __init__(self):
        super().__init__()
        self.b4 = nn.ModuleDict({"affine": Affine()})
        self.b8 = nn.ModuleDict({"affine": Affine()})

    def forward(self, ws, noise_mode="random"):
        assert ws.shape[1:] == (2, W)
        x = self.b4["affine"](ws[:, 0]) + self.b8["affine"](ws[:, 1])
        x = x.view(-1, 3, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return x + torch.randn_like(x) if noise_mode == "random" else x


class StyleGAN(nn.Module):
    def __init__(self, num_ws=2):
        super().__init__()
        self.mapping, self.synthesis = Mapping(num_ws), Synthesis()

    def forward(self, z):
        return self.synthesis(self.mapping(z, None), noise_mode="const")


def adapt_pair(G, **options):
    return adapt_stylegan(
        lambda z: G.mapping(z, None),
        lambda w: G.synthesis(w, noise_mode="const"),
        latent_dim=D,
        network=G,
        **options,
    )


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("given", "num_ws"), [(2, None), (2, 2), (None, 2)])
def test_the_images_are_those_of_the_pair(given, num_ws):
    G = StyleGAN(given)
    z = draw(4, D)
    w = G.mapping.layers(z)
    expected = G.synthesis(w[:, None].repeat(1, 2, 1), noise_mode="const").clamp(-1, 1)
    in_z = adapt_pair(G, num_ws=num_ws)
    assert isinstance(in_z, Generator)
    torch.testing.assert_close(in_z.decode(z), expected)
    in_w = adapt_pair(G, num_ws=num_ws, space="w", draws=100)
    torch.testing.assert_close(in_w.decode(w - in_w.network.mean), expected)
    assert (in_z.latent_dim, in_w.latent_dim) == (D, W)


def test_truncation_is_towards_the_mean_of_w():
    G = StyleGAN()
    z = draw(4, D)
    w = G.mapping.layers(z)
    half = adapt_pair(G, truncation=0.5)
    mean = half.network.mean
    many = torch.randn(10_000, D, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean, G.mapping.layers(many).mean(dim=0), atol=1e-5, rtol=1e-5)
    ws = (mean + 0.5 * (w - mean))[:, None].repeat(1, 2, 1)
    expected = G.synthesis(ws, noise_mode="const").clamp(-1, 1)
    torch.testing.assert_close(half.decode(z), expected)
    in_w = adapt_pair(G, truncation=0.5, space="w")
    torch.testing.assert_close(in_w.decode(w - mean), expected)
    none = adapt_pair(G, truncation=0.0).decode(z)
    torch.testing.assert_close(none, none[:1].expand_as(none))


def test_latents_and_axes_in_w_are_those_of_the_mapping():
    generator = adapt_pair(StyleGAN(), space="w")
    x = generator.sample_latents(5000, torch.Generator().manual_seed(5))
    again = generator.sample_latents(5000, torch.Generator().manual_seed(5))
    assert torch.equal(x, again)
    assert x.mean(dim=0).abs().max() < 0.05
    assert len(generator.axes) <= W
    for axis in generator.axes:
        assert float((x @ axis.direction).std()) == pytest.approx(axis.std, rel=0.1)
    assert [axis.std for axis in generator.axes] == sorted(
        (axis.std for axis in generator.axes), reverse=True
    )
    measured = activeness(
        generator.decode,
        x[:50],
        torch.stack([axis.direction for axis in generator.axes]),
        std=[axis.std for axis in generator.axes],
    )
    assert (measured.per_axis > 0).all()


def test_sefa_of_styles():
    G = StyleGAN()
    generator = adapt_pair(G, space="w")
    axes = style_axes(generator, "*.affine")
    A = torch.cat([G.synthesis.b4["affine"].weight, G.synthesis.b8["affine"].weight]).detach()
    _, S, V = torch.linalg.svd(A)
    for k, axis in enumerate(axes):
        assert abs(float(axis.direction @ V[k])) == pytest.approx(1, abs=1e-4)
        assert axis.name == f"rank {k + 1} (gain {float(S[k]):.3g})"
        spread = generator.sample_latents(5000, torch.Generator().manual_seed(2)) @ axis.direction
        assert float(spread.std()) == pytest.approx(axis.std, rel=0.1)
    one = style_axes(generator, "network.whole.synthesis.b4.affine", count=2)
    _, S, _ = torch.linalg.svd(G.synthesis.b4["affine"].weight.detach())
    assert [axis.name for axis in one] == [f"rank {k + 1} (gain {S[k]:.3g})" for k in range(2)]
    _, S, V = torch.linalg.svd(A / A.norm(dim=1, keepdim=True))
    for k, axis in enumerate(style_axes(generator, "*.affine", normalise=True)):
        assert abs(float(axis.direction @ V[k])) == pytest.approx(1, abs=1e-4)
        assert axis.name == f"rank {k + 1} (gain {float(S[k]):.3g})"
        assert axis.group == "normalised SeFa of *.affine"
    with pytest.raises(ValueError, match=r"no layer 'nose' .*\(out, 5\); there is network\.whole"):
        style_axes(generator, "nose")
    with pytest.raises(ValueError, match="count must be between 1 and 5, got 6"):
        style_axes(generator, "*.affine", count=6)
    with pytest.raises(ValueError, match="space w, got one in space z"):
        style_axes(adapt_pair(G, truncation=0.5), "*.affine")
    for other in (adapt_pair(G), adapt(lambda z: z.view(-1, 1, 1, 1).tanh(), latent_dim=1)):
        with pytest.raises(ValueError, match="that adapt_stylegan made in space w"):
            style_axes(other, "*.affine")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "w+"}, "space must be z or w, got 'w\\+'"),
        ({"truncation": 1.5}, "truncation must be between 0 and 1, got 1.5"),
        ({"draws": 1}, "draws must be at least 2, got 1"),
        ({"num_ws": 3}, r"w of shape \(2, 2, 5\), but num_ws is 3"),
        ({"latent_dim": 4}, r"mapping must take latents of shape \(2, 4\), but raised"),
        ({"clamp": False, "image_range": (-0.01, 0.01)}, "choose another image_range"),
    ],
)
def test_bad_options(options, message):
    G = StyleGAN()
    with pytest.raises(ValueError, match=message):
        adapt_stylegan(
            lambda z: G.mapping(z, None),
            lambda w: G.synthesis(w, noise_mode="const"),
            **{"latent_dim": D} | options,
        )


def test_bad_pairs():
    G = StyleGAN()
    with pytest.raises(ValueError, match="fix its noise"):
        adapt_stylegan(lambda z: G.mapping(z, None), G.synthesis, latent_dim=D)
    with pytest.raises(ValueError, match="the same w for all layers"):
        adapt_stylegan(lambda z: torch.stack([z, -z], dim=1), G.synthesis, latent_dim=D)
    for mapping in (lambda z: z[:1], lambda z: (z, z), lambda z: z[:, 0]):
        with pytest.raises(ValueError, match=r"mapping must give w of shape \(2, W\)"):
            adapt_stylegan(mapping, G.synthesis, latent_dim=D)
