import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from disentangle.orthogonality import optimal_learning_rate

few = settings(max_examples=40, deadline=None, derandomize=True)


def newton_step(w, l):  # noqa: E741
    def objective(eta):
        return (w - eta * l).square().sum().square()

    eta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objective(eta), eta, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, eta)
    return (-slope / curvature).item()


@few
@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-1, 1))
def test_olr_is_the_newton_step(seed, scale, mix):
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    l = scale * (mix * w + torch.randn(4, 6, generator=generator, dtype=torch.float64))  # noqa: E741
    eta = newton_step(w, l)
    assume(abs(eta) > 1e-9)
    assert optimal_learning_rate(w, l, 1e9).item() == pytest.approx(eta if eta > 0 else 1e9)
    assert optimal_learning_rate(w, l, abs(eta) / 2).item() == abs(eta) / 2


def test_olr_of_a_large_weight():
    # More than one piece, the last of them shorter.
    w, l = torch.randn(2, 3, 70_001), torch.randn(2, 3, 70_001)  # noqa: E741
    l += w  # noqa: E741
    expected = newton_step(w.double(), l.double())
    assert optimal_learning_rate(w, l, 10.0).item() == pytest.approx(expected, rel=1e-12)


def test_olr_passes_gradcheck():
    w, l = torch.randn(2, 4, 3, dtype=torch.float64)  # noqa: E741
    l += w  # noqa: E741
    assert 0 < optimal_learning_rate(w, l, 10.0) < 10
    rate = torch.tensor(10.0, dtype=torch.float64)
    arguments = [tensor.requires_grad_() for tensor in (w, l, rate)]
    assert torch.autograd.gradcheck(optimal_learning_rate, arguments)


def test_the_derivative_of_the_base_rate_is_zero():
    zeros, ones = torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    for w, l in [(zeros, ones), (ones, zeros), (zeros, zeros), (ones, -ones)]:  # noqa: E741
        rate = optimal_learning_rate(w, l, 0.3)
        for gradient in torch.autograd.grad(rate, [w, l]):
            assert torch.equal(gradient, torch.zeros(2, 2))


@pytest.mark.parametrize("as_tensor", [False, True])
def test_olr_compiles(as_tensor):
    compiled = torch.compile(optimal_learning_rate, fullgraph=True, backend="aot_eager")
    w, l = torch.randn(3, 2, 2), torch.randn(3, 2, 2)  # noqa: E741
    for gradient in (w, l, -w, torch.zeros_like(w)):
        base = torch.tensor(0.3) if as_tensor else 0.3
        expected = optimal_learning_rate(w, gradient, base)
        torch.testing.assert_close(compiled(w, gradient, base), expected)


def test_olr_of_extreme_entries():
    unit = torch.randn(3, 5).abs()
    expected = optimal_learning_rate(unit, unit.flip(0), 10.0).item()
    for w_scale, l_scale in [(1e-30, 1e-30), (1e15, 1e15), (1e-30, 1e15), (1e15, 1e-30)]:
        rate = optimal_learning_rate(w_scale * unit, l_scale * unit.flip(0), 1e300)
        assert rate.item() == pytest.approx(expected * w_scale / l_scale, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_olr_of_a_degenerate_pair_is_the_base_rate(dtype):
    ones, zeros = torch.ones(2, 2, dtype=dtype), torch.zeros(2, 2, dtype=dtype)
    for entry in (torch.nan, torch.inf, -torch.inf):
        spoilt = ones.clone()
        spoilt[0, 1] = entry
        for w, l in [(spoilt, ones), (ones, spoilt), (spoilt, spoilt), (zeros, spoilt)]:  # noqa: E741
            assert optimal_learning_rate(w, l, 0.3).item() == 0.3
    for w, l in [(zeros, ones), (ones, zeros), (zeros, zeros), (ones, -ones)]:  # noqa: E741
        assert optimal_learning_rate(w, l, 0.3).item() == 0.3


def test_olr_takes_a_tensor_as_base_rate_and_leaves_it_alone():
    base = torch.tensor(0.25)
    rate = optimal_learning_rate(torch.ones(2, 2), torch.ones(2, 2), base)
    assert rate.item() == 0.25
    assert rate is not base
    assert rate.shape == ()
    assert optimal_learning_rate(torch.ones(2, 2), torch.ones(2, 2), torch.tensor(0.5)) == 1 / 3
    # As torch's optimizers do.
    assert optimal_learning_rate(torch.ones(2, 2), torch.ones(2, 2), base[None]).shape == ()


def test_olr_refuses_another_shape():
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(3, 2\)"):
        optimal_learning_rate(torch.ones(2, 3), torch.ones(3, 2), 0.1)
