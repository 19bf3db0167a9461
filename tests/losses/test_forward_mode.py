import pytest
import torch
from torch import nn

from disentangle.losses.forward_mode import SoundNorms, derive


def smooth(norm):
    """Through a norm of 3 channels, with a curved map before and after it."""
    mix = torch.randn(3, 3, dtype=torch.double)
    return lambda h: (norm(torch.einsum("dc,nc...->nd...", mix, h).sin()).tanh(),)


def inputs(*shape):
    return torch.randn(2, 3, *shape, dtype=torch.double), torch.randn(
        2, 3, *shape, dtype=torch.double
    )


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.InstanceNorm2d(3, affine=True), (4, 4)),
        (nn.InstanceNorm2d(3, eps=1e-2), (4, 4)),
        (nn.InstanceNorm1d(3, affine=True), (6,)),
    ],
)
@pytest.mark.parametrize("order", [1, 2])
def test_derivatives_through_an_instance_norm(norm, shape, order):
    norm = norm.double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    function = smooth(norm)
    point, direction = inputs(*shape)
    (found,) = derive(function, point, direction, order=order)
    step = 1e-4
    ahead, here, behind = (function(point + s * step * direction)[0] for s in (1, 0, -1))
    expected = (
        (ahead - behind) / (2 * step) if order == 1 else (ahead - 2 * here + behind) / step**2
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_a_derivative_through_an_instance_norm():
    norm = nn.InstanceNorm2d(3).double()
    point, direction = inputs(3, 3)

    def slope(scale):
        return derive(lambda h: smooth_of(norm, h * scale), point, direction, order=1)[0]

    def smooth_of(norm, h):
        return (norm(h.sin()).tanh(),)

    scale = torch.rand(3, 1, 1, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(slope, scale)


def test_the_norm_made_of_primitives_is_that_of_torch():
    h = torch.randn(2, 3, 4, 5)
    for norm in (nn.InstanceNorm2d(3, affine=True, eps=1e-6), nn.InstanceNorm2d(3)):
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        expected = norm(h)
        with SoundNorms():
            torch.testing.assert_close(norm(h), expected)
            assert not torch.equal(norm(2 * h), expected + 1)


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(3, track_running_stats=False), nn.GroupNorm(3, 3), nn.LayerNorm((3, 4, 4))],
)
def test_other_norms_are_refused(norm):
    point, direction = inputs(4, 4)
    with pytest.raises(ValueError, match=r"InstanceNorm here, got \w+_norm: use finite"):
        derive(lambda h: (norm(h.float()),), point, direction, order=1)


def test_running_statistics_are_refused():
    norm = nn.InstanceNorm2d(3, track_running_stats=True).double()
    with pytest.raises(ValueError, match="without running statistics"):
        derive(lambda h: (norm(h),), *inputs(4, 4), order=1)


def test_the_norms_of_torch_are_back_afterwards():
    h = torch.randn(2, 3, 4, 4)
    norm = nn.GroupNorm(3, 3)
    with pytest.raises(ValueError, match="got group_norm"), SoundNorms():
        norm(h)
    assert norm(h).shape == h.shape
