import pytest
import torch
from torch import nn
from torch.nn.functional import conv_transpose2d

from disentangle.models.layers.image_convolution import ImageConvTranspose2d


def pytorch(layer, h):
    return conv_transpose2d(h, layer.weight, layer.bias, stride=2, padding=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_map_and_its_gradient_are_pytorchs(channels, order, dtype):
    layer = ImageConvTranspose2d(5, channels).to(dtype=dtype, memory_format=order)
    h = torch.randn(2, 5, 3, 6, dtype=dtype).to(memory_format=order).requires_grad_()
    inputs = [h, *layer.parameters()]
    images, expected = layer(h), pytorch(layer, h)
    torch.testing.assert_close(images, expected)
    G = torch.randn_like(expected)
    gradients = torch.autograd.grad(images, inputs, G)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs, G))


def test_derivatives_of_every_kind():
    layer = ImageConvTranspose2d(2, 1).double()
    h = torch.randn(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    inputs = (h, layer.weight, layer.bias)

    def call(h, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, h)

    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, inputs)
    jacobian = torch.func.jacrev(layer)(h)
    torch.testing.assert_close(jacobian, torch.func.jacfwd(lambda h: pytorch(layer, h))(h))


def test_a_second_derivative_in_forward_mode():
    layer = ImageConvTranspose2d(2, 1).double()
    h, direction = torch.randn(2, 1, 2, 3, 3, dtype=torch.float64)

    def slope(function):
        return lambda h: torch.func.jvp(function, (h,), (direction,))[1]

    curvature = slope(slope(lambda h: layer(h.square())))(h)
    expected = pytorch(layer, 2 * direction.square()) - layer.bias[:, None, None]
    torch.testing.assert_close(curvature, expected)


def test_it_is_a_transposed_convolution_by_name_and_in_mixed_precision():
    layer = ImageConvTranspose2d(4, 1)
    nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1).load_state_dict(layer.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 4, 2, 2)).dtype is torch.bfloat16
