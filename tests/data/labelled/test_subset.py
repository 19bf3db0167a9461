import numpy as np
import pytest
import torch

from disentangle.data import Digits, LabelledSubset, hold_out


def test_the_parts_are_the_whole_with_the_same_share_of_each_class():
    data = Digits()
    rest, held_out = hold_out(data, 0.25)
    assert len(rest) + len(held_out) == len(data)
    images = {part.numpy().tobytes() for part in [*rest, *held_out]}
    assert images == {image.numpy().tobytes() for image in data}
    shares = [np.bincount(part.labels) / len(part) for part in (rest, held_out)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01
    again = hold_out(data, 0.25)[1]
    assert np.array_equal(again.labels, held_out.labels)
    assert torch.equal(again[0], held_out[0])


def test_a_subset_has_the_images_of_its_indices():
    data = Digits()
    subset = LabelledSubset(data, np.array([7, 2, 2]))
    assert torch.equal(subset.__getitems__([2, 0]), data.__getitems__([2, 7]))
    assert subset.labels.tolist() == data.labels[[7, 2, 2]].tolist()
    with pytest.raises(ValueError, match="indices must be between 0 and 1436, got 9999"):
        LabelledSubset(data, np.array([9999]))


def test_a_part_too_small_for_the_classes():
    with pytest.raises(ValueError, match="should be greater or equal to the number of classes"):
        hold_out(Digits(), 0.001)
