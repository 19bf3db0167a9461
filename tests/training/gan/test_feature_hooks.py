import pytest
import torch
from torch import nn
from torch.func import jvp

from disentangle.models import EigenGAN, SimpleGAN
from disentangle.training.gan.feature_hooks import record_layers
from disentangle.training.gan.parametrize_cache import hold_weights


class Branches(nn.Module):
    """Calls `twice` twice, `pair` gives two tensors, `idle` is never called."""

    def __init__(self):
        super().__init__()
        self.twice, self.idle, self.last = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        self.pair = Pair()

    def forward(self, z):
        h = self.twice(self.twice(z))
        return self.last(self.pair(h)[0])


class Pair(nn.Module):
    def forward(self, z):
        return z, z


def hooks(module):
    return sum(len(part._forward_hooks) for part in module.modules())


def test_outputs_in_the_order_asked_for():
    model = SimpleGAN(image_size=64, latent_dim=3, base_channels=1)
    z = model.sample_latents(2)
    features = model.latent_projection(z[..., None, None])
    convolved, first = record_layers(model.decode, model, ["convolutions.0", "latent_projection"])(
        z
    )
    assert torch.equal(first, features)
    assert torch.equal(convolved, model.convolutions[0](features))
    assert hooks(model) == 0


def test_the_first_call_counts():
    model, z = Branches(), torch.randn(3, 2)
    found = record_layers(model, model, ["twice", "last"])(z)
    assert torch.equal(found[0], model.twice(z))
    assert torch.equal(found[1], model(z))


def test_decoding_ends_with_the_last_layer():
    model = SimpleGAN(image_size=64, latent_dim=3, base_channels=1)
    calls = []
    for name, part in model.named_modules():
        part.register_forward_hook(lambda *_, name=name: calls.append(name))
    record_layers(model.decode, model, ["convolutions.0"])(model.sample_latents(2))
    assert calls == ["latent_projection", "convolutions.0"]


def test_an_error_while_decoding_leaves_no_hooks():
    model = Branches()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        record_layers(model, model, ["last"])(torch.zeros(2, 5))
    assert hooks(model) == 0


def test_gradients_flow_through_tangents():
    model = EigenGAN(image_size=32, base_channels=2, noise_dim=3)
    decode = record_layers(model.decode, model, ["blocks.0.feature_conv1", "blocks.1"])
    z = model.sample_latents(2)
    _, tangents = jvp(decode, (z,), (torch.ones_like(z),))
    sum(tangent.square().sum() for tangent in tangents).backward()
    assert model.blocks[0].subspace.U.grad.abs().sum() > 0
    assert model.to_image.weight.grad is None


def test_names_that_are_not_found():
    model = SimpleGAN(image_size=64, latent_dim=3, base_channels=1)

    def fail(names, match):
        with pytest.raises(ValueError, match=match):
            record_layers(model.decode, model, names)

    fail(["latent_projecton"], r"no layer is named 'latent_projecton'; there is latent_projection")
    fail(["xyz"], r"there is latent_projection, convolutions, convolutions.0, .*, to_image")
    fail([], r"distinct names, at least one, got \[\]")
    fail(["norms.0", "norms.0"], r"distinct names, at least one, got \['norms.0', 'norms.0'\]")
    fail("norms.0", "layers must be a list of names, got the string 'norms.0'")


def test_layers_that_give_nothing_to_record():
    model, z = Branches(), torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"these did not: idle$"):
        record_layers(model, model, ["twice", "idle"])(z)
    with pytest.raises(ValueError, match="'pair' must give a tensor, got tuple"):
        record_layers(model, model, ["pair"])(z)


@pytest.mark.parametrize("pre_svd_weight", ["orthogonal", "spectral"])
def test_held_weights(pre_svd_weight):
    model = SimpleGAN(
        image_size=64, latent_dim=3, base_channels=1, pre_svd_weight=pre_svd_weight
    ).train()
    z = model.sample_latents(2)
    with hold_weights(model):
        held = model.latent_projection.weight
        loss = model.decode(z).square().sum() + model.decode(-z).square().sum()
        assert model.latent_projection.weight is held
    loss.backward()
    assert model.latent_projection.parametrizations.weight.original.grad.abs().sum() > 0
    assert model.latent_projection.weight is not held


def test_held_weights_of_a_module_without_any():
    model = nn.Linear(2, 2)
    with hold_weights(model):
        assert model.weight is model.weight
