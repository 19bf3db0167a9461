import pytest
import torch
from torch.optim import SGD

from disentangle.orthogonality import orthogonal_loss


def test_orthogonal_loss_of_known_matrices():
    wide = torch.linalg.qr(torch.randn(9, 4))[0].T
    assert orthogonal_loss([wide]).item() == pytest.approx(0, abs=1e-12)
    assert orthogonal_loss([wide.T]).item() == pytest.approx(0, abs=1e-12)
    assert orthogonal_loss([wide.reshape(4, 1, 3, 3)]).item() == pytest.approx(0, abs=1e-12)
    # Gram 4I: three on the diagonal of 4 × 4.
    assert orthogonal_loss([2 * wide]).item() == pytest.approx(9 / 4, rel=1e-5)
    assert orthogonal_loss(iter([wide, 2 * wide])).item() == pytest.approx(9 / 8, rel=1e-5)


def test_orthogonal_loss_descends_to_an_orthonormal_matrix():
    weight = (0.3 * torch.randn(3, 8)).requires_grad_()
    optimizer = SGD([weight], lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        orthogonal_loss([weight]).backward()
        optimizer.step()
    torch.testing.assert_close(weight @ weight.T, torch.eye(3), atol=1e-4, rtol=0)


def test_orthogonal_loss_passes_gradcheck():
    matrices = [torch.randn(shape, dtype=torch.float64) for shape in [(2, 4), (4, 2), (2, 1, 3)]]
    matrices = [matrix.requires_grad_() for matrix in matrices]
    assert torch.autograd.gradcheck(lambda *Us: orthogonal_loss(Us), matrices)


def test_orthogonal_loss_says_what_it_expects():
    with pytest.raises(ValueError, match="at least one matrix, got none"):
        orthogonal_loss([])
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        orthogonal_loss([torch.ones(3)])
