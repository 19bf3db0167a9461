"""Compare SVD meta-layers, their gradients, and all networks with float64 on the CPU.

To add a layer, add an entry to `LAYERS`; to add a network, one to `networks`.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from disentangle.models import (
    EigenGAN,
    EigenGANDiscriminator,
    ResNet,
    SimpleGAN,
    SimpleGANDiscriminator,
    SubspaceVAE,
)
from disentangle.models.layers import DecorrelatedBatchNorm2d, Whitening
from disentangle.models.layers.covariance_pooling import CovarianceRoot
from disentangle.orthogonality import SkewOrthogonalConv2d
from tests.benchmarks.bench_classification import StraightforwardNorm
from tests.helpers.waiting import refusing_to_wait

from .harness import Checks, Setting, check_error, check_pair, full_precision
from .linear_algebra import with_gradient

CHANNELS, EPS = 12, 1e-2
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def checks(setting: Setting) -> Checks:
    """Yield the checks of this part."""
    device = setting.device
    for name, layer in LAYERS.items():
        for dtype in TOLERANCES:
            yield f"{name}, {dtype}", partial(check_layer, layer, dtype, device)
        yield f"{name} in evaluation", partial(check_evaluation, layer, device)
        yield f"{name} does not wait", partial(check_waiting, layer, device)
    yield "skew-orthogonal convolution keeps norms", partial(check_norms, device)
    for name, network in networks(setting).items():
        yield f"{name}", partial(check_network, network, device)


# The equations


def whiten(codes: Tensor) -> Tensor:
    """`Σ^-½ (x − x̄)` of codes `(N, C)`."""
    centred = codes - codes.mean(0)
    covariance = centred.mT @ centred / len(codes) + EPS * torch.eye(CHANNELS)
    lambdas, U = torch.linalg.eigh(covariance)
    return centred @ (U * lambdas.rsqrt()) @ U.mT


def covariance_roots(maps: Tensor) -> Tensor:
    """Upper triangles of the roots of the covariances of maps `(N, C, H, W)`."""
    roots = []
    for points in maps.flatten(2):  # (C, HW)
        covariance = torch.cov(points, correction=0) + EPS * torch.eye(CHANNELS)
        lambdas, U = torch.linalg.eigh(covariance)
        roots.append((U * lambdas.sqrt()) @ U.mT)
    rows, columns = torch.triu_indices(CHANNELS, CHANNELS)
    return torch.stack(roots)[:, rows, columns]


def make_maps() -> Tensor:
    """Feature maps `(N, C, H, W)` whose channels depend on each other."""
    mixing = torch.randn(CHANNELS, CHANNELS, dtype=torch.float64)
    samples = torch.randn(8, 6, 6, CHANNELS, dtype=torch.float64)
    return (samples @ mixing / CHANNELS**0.5).permute(0, 3, 1, 2)


def make_codes() -> Tensor:
    """Codes `(N, C)`."""
    return make_maps()[..., 0].mT.flatten(0, 1)


class Layer(NamedTuple):
    """A layer without trained scale or shift, and its equation.

    Attributes:
        build: Builds the layer.
        equation: The same map, differentiable in float64.
        make: Samples an input in float64.
    """

    build: Callable[[], nn.Module]
    equation: Callable[[Tensor], Tensor]
    make: Callable[[], Tensor]


LAYERS = {
    "decorrelated batch norm": Layer(
        partial(DecorrelatedBatchNorm2d, CHANNELS, eps=EPS), StraightforwardNorm(), make_maps
    ),
    "whitening": Layer(partial(Whitening, dim=CHANNELS, eps=EPS), whiten, make_codes),
    "covariance pooling": Layer(partial(CovarianceRoot, eps=EPS), covariance_roots, make_maps),
}


def check_layer(layer: Layer, dtype: torch.dtype, device: torch.device) -> str:
    """Compare value and gradient in training mode, in both memory formats."""
    x = layer.make().to(dtype)
    truth = layer.equation(x.double())
    G = torch.randn_like(truth).to(dtype)
    expected = with_gradient(layer.equation, x.double(), G.double())
    found = []
    for order, memory_format in FORMATS.items():
        on_device = x.to(device)
        if x.ndim == 4:
            on_device = on_device.contiguous(memory_format=memory_format)
        got = with_gradient(layer.build().to(device), on_device, G.to(device))
        found.append(check_pair(order, got, expected, 2 * (TOLERANCES[dtype],)))
    return f"errors of value and gradient, {'; '.join(found)}"


def check_evaluation(layer: Layer, device: torch.device) -> str:
    """Compare the output in evaluation mode, after some batches in training mode."""
    ours, exact = layer.build().to(device), layer.build().double()
    for _ in range(3):
        x = layer.make()
        ours(x.float().to(device))
        exact(x)
    x = layer.make()
    got, expected = ours.eval()(x.float().to(device)), exact.eval()(x)
    return f"error {check_error('value', got, expected, TOLERANCES[torch.float32])}"


def check_waiting(layer: Layer, device: torch.device) -> str:
    """Run forward and backward passes without host synchronisation."""
    module, x = layer.build().to(device), layer.make().float().to(device).requires_grad_()
    module(x).square().sum().backward()
    with refusing_to_wait(device):
        module(x).square().sum().backward()
    return ""


def check_norms(device: torch.device) -> str:
    """Compare the norms of images before and after an orthogonal map."""
    errors = []
    for stride in (1, 2):
        layer = SkewOrthogonalConv2d(3, 3 * stride**2, 3, stride=stride, bias=False).eval()
        images = torch.randn(4, 3, 8, 8, device=device)
        with full_precision():
            norms = layer.to(device)(images).flatten(1).norm(dim=1)
        errors.append(check_error("norms", norms, images.flatten(1).norm(dim=1), 1e-4))
    return f"errors {', '.join(errors)}"


# Networks


class Network(NamedTuple):
    """A network and the method to run.

    Attributes:
        build: Builds the network.
        arguments: Shape of the input.
        run: Runs the method on an input.
    """

    build: Callable[[], nn.Module]
    arguments: tuple[int, ...]
    run: Callable[[nn.Module, Tensor], Tensor] = lambda network, x: network(x)


def networks(setting: Setting) -> dict[str, Network]:
    """All networks by name."""
    width = 4 if setting.quick else 16
    size = {"image_size": 32, "image_channels": 3}
    gan = {"base_channels": width, "max_channels": 8 * width}
    vae = size | {"base_channels": width, "hidden_dim": 8 * width}
    images, generated = (4, 3, 32, 32), (4, 3, 64, 64)
    recogniser = {"depth": 10, "base_channels": width, **size}
    return {
        "EigenGAN": Network(partial(EigenGAN, noise_dim=8, **gan, **size), (4, 26)),
        "EigenGAN's discriminator": Network(partial(EigenGANDiscriminator, **gan, **size), images),
        "simple GAN": Network(
            partial(SimpleGAN, image_size=64, latent_dim=6, base_channels=width), (4, 6)
        ),
        "simple GAN's discriminator": Network(
            partial(SimpleGANDiscriminator, image_size=64, base_channels=width), generated
        ),
        **{
            f"VAE ({network}), {part}": Network(
                partial(SubspaceVAE, network=network, code_dim=6, **vae), shape, run
            )
            for network in ("conv", "residual")
            for part, shape, run in (
                ("encoder", images, lambda model, x: model.encode(x)),
                ("decoder", (4, 6), lambda model, z: model.decode(z)),
            )
        },
        **{
            f"ResNet, meta-layer {name}": Network(
                partial(ResNet, meta_layer=name, **recogniser), images
            )
            for name in ("none", "decorrelated_batch_norm", "covariance_pooling")
        },
    }


@torch.no_grad()
def check_network(network: Network, device: torch.device) -> str:
    """Compare the output in float32, and under autocast to bfloat16 with channels last."""
    exact = network.build().double().eval()
    ours = copy.deepcopy(exact).float().to(device)
    x = torch.randn(network.arguments, dtype=torch.float64).clamp(-1, 1)
    expected, on_device = network.run(exact, x), x.float().to(device)
    with full_precision():
        got = network.run(ours, on_device)
    single = check_error("float32", got, expected, 1e-4)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        got = network.run(ours.to(memory_format=torch.channels_last), on_device)
    return f"errors {single}; in bfloat16 {check_error('bfloat16', got, expected, 0.1)}"
