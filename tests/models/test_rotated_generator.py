import pytest
import torch

from disentangle.models import (
    Encoder,
    Generator,
    RotatedGenerator,
    SimpleGAN,
    SubspaceVAE,
    rotate_latents,
    sefa_axes,
)


@pytest.fixture
def model():
    return SimpleGAN(image_size=64, base_channels=2, latent_dim=5).eval()


def test_the_images_are_those_of_the_latents(model):
    axes = sefa_axes(model)
    rotated = RotatedGenerator(model, axes)
    z = model.sample_latents(3)
    y = rotate_latents(z, axes)
    assert (y - z).abs().max() > 0.1
    torch.testing.assert_close(rotated.decode(y), model.decode(z))


def test_the_axes_are_coordinates_under_the_names_of_sefa(model):
    axes = sefa_axes(model)
    rotated = RotatedGenerator(model, axes)
    assert isinstance(rotated, Generator)
    assert [axis.name for axis in rotated.axes] == [axis.name for axis in axes]
    assert torch.stack([axis.direction for axis in rotated.axes]).equal(torch.eye(5))


def test_it_goes_where_its_generator_goes(model):
    rotated = RotatedGenerator(model, sefa_axes(model)).double()
    assert next(model.parameters()).dtype == torch.float64
    assert rotated.decode(rotated.sample_latents(1).double()).dtype == torch.float64


def test_an_encoder_is_left_aside():
    model = SubspaceVAE(image_size=32, base_channels=4)
    assert isinstance(model, Encoder)
    assert not isinstance(RotatedGenerator(model, sefa_axes(model)), Encoder)


def test_fewer_axes_are_no_rotation(model):
    with pytest.raises(ValueError, match="expected 5 axes, got 2"):
        RotatedGenerator(model, sefa_axes(model, count=2))
