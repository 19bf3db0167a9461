import pytest
import torch

from disentangle.linalg import custom_function, matrix_sqrt, polar_factor
from disentangle.linalg.custom_function import call, operate


class Cube(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 3 * ctx.saved_tensors[0] ** 2 * gradient

    @staticmethod
    def tangent(ctx, change):
        return operate(lambda x, dx: 3 * x**2 * dx, *ctx.saved_tensors, change)


def cube(x):
    return call(Cube, x)


@pytest.fixture(params=["as torch is", "without its private functions"])
def either_way(request, monkeypatch):
    if request.param != "as torch is":
        monkeypatch.setattr(custom_function, "transforms_active", lambda: True)
        monkeypatch.setattr(custom_function, "_dual_numbers_active", lambda: True)


def test_every_mode_finds_every_derivative(either_way):
    x = torch.tensor(2.0, dtype=torch.float64)

    def forward(function):
        return lambda x: torch.func.jvp(function, (x,), (torch.ones_like(x),))[1]

    for first in (forward, torch.func.grad):
        assert first(cube)(x) == 12
        for second in (forward, torch.func.grad):
            assert second(first(cube))(x) == 12
            for third in (forward, torch.func.grad):
                assert third(second(first(cube)))(x) == 6
                assert torch.vmap(third(second(first(cube))))(x[None]) == 6


def test_derivatives_without_transforms(either_way):
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cube, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(cube, x, check_fwd_over_rev=True)
    with torch.no_grad():
        assert not cube(x).requires_grad


def test_the_matrix_functions_need_nothing_private(either_way):
    A = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(polar_factor, A, check_forward_ad=True)
    assert torch.autograd.gradcheck(lambda a: matrix_sqrt(a @ a.mT), A, check_forward_ad=True)


@pytest.mark.skipif(
    torch.__version__.startswith("2.8."), reason="PyTorch 2.8 cannot compile its gradient"
)
def test_it_compiles():
    compiled = torch.compile(cube, fullgraph=True, backend="aot_eager")
    x = torch.tensor(2.0, requires_grad=True)
    compiled(x).backward()
    assert x.grad == 12
