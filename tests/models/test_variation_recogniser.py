import pytest
import torch

from disentangle.models.variation_recogniser import VariationRecogniser


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("image_channels", [1, 3])
def test_logits(image_size, image_channels):
    model = VariationRecogniser(axis_count=7, image_size=image_size, image_channels=image_channels)
    logits = model(torch.randn(2, image_channels, image_size, image_size))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_widths_of_the_published_code_at_64_pixels():
    model = VariationRecogniser(axis_count=6)
    assert [tuple(c.weight.shape) for c in (model.from_difference, *model.convolutions)] == [
        (4, 3, 4, 4),
        *[(4, 4, 4, 4)] * 3,
    ]
    assert model.hidden.weight.shape == (16, 4 * 4 * 4)
    assert model.output.weight.shape == (6, 16)


def test_saved_and_read_again(tmp_path):
    model = VariationRecogniser(axis_count=3, image_size=32, channels=5).eval()
    model.save_pretrained(tmp_path)
    loaded = VariationRecogniser.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), model(images))


def test_bad_input():
    with pytest.raises(ValueError, match="at least 2 axes to tell apart, got 1"):
        VariationRecogniser(axis_count=1)
    with pytest.raises(ValueError, match="power of two from 32, got 48"):
        VariationRecogniser(axis_count=2, image_size=48)
    with pytest.raises(ValueError, match="image_channels must be 1 or 3, got 2"):
        VariationRecogniser(axis_count=2, image_channels=2)
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        VariationRecogniser(axis_count=2, channels=0)
    with pytest.raises(ValueError, match=r"shape \(N, 3, 32, 32\), got \(1, 3, 64, 64\)"):
        VariationRecogniser(axis_count=2, image_size=32)(torch.zeros(1, 3, 64, 64))
