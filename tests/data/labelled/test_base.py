import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from disentangle.data import Digits, LabelledImages
from disentangle.data.labelled.array import LabelledArray


@pytest.fixture(scope="module")
def digits():
    return Digits(), Digits(split="test")


def test_digits_are_those_of_scikit_learn(digits):
    stored, labels = load_digits(return_X_y=True)
    images = torch.cat([data.__getitems__(range(len(data))) for data in digits])
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert (images.min(), images.max()) == (0, 255)
    found = np.column_stack([images.flatten(1), np.concatenate([d.labels for d in digits])])
    expected = np.column_stack([np.rint(stored / 16 * 255), labels])
    assert np.array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])


def test_digits_have_a_fixed_fifth_of_each_class_for_the_test(digits):
    train, test = digits
    assert (len(train), len(test)) == (1437, 360)
    fraction = np.bincount(test.labels) / np.bincount(np.concatenate([train.labels, test.labels]))
    assert (abs(fraction - 0.2) < 0.004).all()
    assert np.array_equal(Digits(split="test").labels, test.labels)
    assert test.class_names == tuple("0123456789")


def test_digits_of_another_size(digits):
    data = Digits(split="test", image_size=32)
    image = digits[1][7][0].numpy()
    expected = Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS)
    assert data.image_size == 32
    assert np.array_equal(data[7][0], expected)
    assert data.__getitems__([]).shape == (0, 1, 32, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "split must be one of train, test, got 'all'"),
        ({"image_size": 0}, "image_size must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments_of_digits(options, message):
    with pytest.raises(ValueError, match=message):
        Digits(**options)


def test_channels_are_resized_each_alone():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    data = LabelledArray(pixels, [0, 1], ["a", "b"], image_size=5)
    for image, stored in zip(data, pixels, strict=True):
        whole = Image.fromarray(stored.permute(1, 2, 0).numpy())
        expected = whole.resize((5, 5), Image.Resampling.LANCZOS)
        assert np.array_equal(image.permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], "labels must be from 0 to 1, got 2"),
        ([-1, 1], "labels must be from 0 to 1, got -1"),
        ([0.0, 1.0], "labels must be integers"),
        ([[0], [1]], r"labels must be integers \(N,\), got int64 \(2, 1\)"),
    ],
)
def test_bad_labels(labels, message):
    pixels = torch.zeros((2, 1, 8, 8), dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        LabelledArray(pixels, labels, ["a", "b"], image_size=8)


def test_interface(digits):
    for data in digits:
        assert isinstance(data, LabelledImages)
        assert data.labels.dtype == np.int64
        assert len(data) == len(data.labels)
