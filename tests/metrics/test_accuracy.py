import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from disentangle.metrics import accuracy


def test_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(500, 12)), rng.integers(0, 12, 500)
    found = accuracy(logits, labels)
    known = {"labels": np.arange(12)}
    assert found.score == pytest.approx(top_k_accuracy_score(labels, logits, k=1, **known))
    assert found.top_5 == pytest.approx(top_k_accuracy_score(labels, logits, k=5, **known))
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    assert found.cross_entropy == pytest.approx(log_loss(labels, probabilities, **known))
    assert np.array_equal(found.confusion, confusion_matrix(labels, logits.argmax(1), **known))


def test_right_and_wrong():
    labels = torch.arange(10)
    assert accuracy(torch.eye(10), labels).score == 1
    wrong = accuracy(torch.eye(10).roll(1, 1), labels)
    assert wrong.score == 0
    assert wrong.confusion.trace() == 0


def test_few_classes_are_always_among_the_five():
    assert accuracy(torch.randn(20, 3), torch.randint(3, (20,))).top_5 == 1


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3), r"logits must have the shape \(N, K\)"),
        (torch.zeros(3, 2), torch.zeros(3), r"labels must be integers \(3,\), got float32"),
        (torch.zeros(3, 2), torch.zeros(2).long(), r"integers \(3,\), got int64 of shape"),
        (torch.full((1, 2), torch.nan), torch.zeros(1).long(), "logits must be finite, got 2 NaN"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), "labels must be from 0 to 1, got 2"),
    ],
)
def test_bad_input(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        accuracy(logits, labels)
