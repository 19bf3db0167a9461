import numpy as np
import torch
from PIL import Image

from disentangle.data.pixels import channels_first, shrink


def test_channels_first():
    images = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    tensor = channels_first(images)
    assert tensor.is_contiguous()
    assert torch.equal(tensor, torch.from_numpy(images).permute(0, 3, 1, 2))


def test_shrink_keeps_a_plain_colour_and_a_ramp():
    plain = np.full((96, 96, 3), (3, 100, 250), dtype=np.uint8)
    assert (shrink(plain, 64) == (3, 100, 250)).all()
    ramp = np.repeat(np.arange(0, 256, 2, dtype=np.uint8)[:, None], 128, axis=1)
    small = shrink(ramp, 64).astype(int)
    assert small.shape == (64, 64)
    # The middle of each pair of rows, off the border.
    assert abs(small[4:-4, 10] - np.arange(1, 256, 4)[4:-4]).max() <= 1
    assert np.array_equal(small, Image.fromarray(ramp).resize((64, 64), Image.Resampling.LANCZOS))
