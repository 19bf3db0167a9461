import itertools

import pytest
import torch
from torch import nn
from torchvision.models import resnet
from torchvision.transforms import functional

from disentangle.models import ResNet
from disentangle.models.layers import DecorrelatedBatchNorm2d, GlobalCovariancePooling
from disentangle.models.layers.pre_svd_convolution import pre_svd_convolution
from disentangle.models.resnet import BLOCKS, NORMALISATIONS, MetaLayer
from disentangle.orthogonality import (
    WEIGHT_CONSTRAINTS,
    SkewOrthogonalConv2d,
    as_matrix,
    attach,
    orthogonal_loss,
    resolve_parameters,
)
from disentangle.orthogonality.conditioning import ConditioningProbe, covariance_conditioning

META_LAYERS = MetaLayer.__args__
CASES = list(itertools.product(META_LAYERS, WEIGHT_CONSTRAINTS))


def small(**options):
    defaults = {"depth": 10, "image_size": 8, "image_channels": 1, "base_channels": 4}
    return ResNet(**defaults | options)


def shapes(module):
    return {name: tuple(x.shape) for name, x in module.state_dict().items()}


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_the_state_dict_is_that_of_torchvision(depth):
    with torch.device("meta"):
        ours = ResNet(depth=depth, image_size=224, classes=1000, stem="large")
        theirs = getattr(resnet, f"resnet{depth}")()
    assert shapes(ours) == shapes(theirs)


@pytest.mark.parametrize("depth", [18, 50])
def test_the_logits_are_those_of_torchvision(depth):
    ours = ResNet(depth=depth, image_size=33, classes=7, stem="large")
    theirs = getattr(resnet, f"resnet{depth}")(num_classes=7)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 33, 33)
    torch.testing.assert_close(ours(images), theirs(images))
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


@pytest.mark.parametrize("depth", BLOCKS)
def test_layers_that_have_weights_are_as_many_as_the_depth(depth):
    with torch.device("meta"):
        model = ResNet(depth=depth)
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
    ]
    assert len(layers) == depth


def test_convolutions_start_as_those_of_torchvision():
    ours, theirs = ResNet(image_size=64, stem="large"), resnet.resnet18()
    for name, parameter in theirs.named_parameters():
        if parameter.ndim == 4:
            own = ours.get_parameter(name)
            assert own.std().item() == pytest.approx(parameter.std().item(), rel=0.05), name
            assert abs(own.mean().item()) < 0.1 * own.std().item()


@pytest.mark.parametrize(
    ("stem", "meta_layer", "size"),
    [
        ("small", "none", 4),
        ("small", "decorrelated_batch_norm", 4),
        ("small", "covariance_pooling", 8),
        ("large", "none", 1),
        ("large", "covariance_pooling", 2),
    ],
)
def test_resolution_before_the_pooling(stem, meta_layer, size):
    model = small(image_size=32, stem=stem, meta_layer=meta_layer)
    seen = []
    model.layer4.register_forward_hook(lambda *args: seen.append(args[2].shape))
    model(torch.zeros(2, 1, 32, 32))
    assert seen == [(2, 32, size, size)]


def test_meta_layers_of_the_paper():
    with torch.device("meta"):
        norm = ResNet(depth=18, meta_layer="decorrelated_batch_norm")
        pooling = ResNet(
            depth=50, image_size=224, stem="large", classes=1000, meta_layer="covariance_pooling"
        )
    assert isinstance(norm.bn1, DecorrelatedBatchNorm2d)
    assert (norm.bn1.channels, norm.bn1.groups, norm.bn1.eps) == (64, 1, 1e-2)
    assert norm.conv1.weight.shape == (64, 3, 3, 3)
    assert isinstance(norm.maxpool, nn.Identity)
    assert sum(isinstance(m, DecorrelatedBatchNorm2d) for m in norm.modules()) == 1
    assert isinstance(pooling.bn1, nn.BatchNorm2d)
    assert pooling.pooling.reduction[0].weight.shape == (256, 2048, 1, 1)
    assert pooling.pooling.root.eps == 1e-2
    assert pooling.fc.weight.shape == (1000, 32_896)


@pytest.mark.parametrize(("meta_layer", "pre_svd_weight"), CASES)
def test_every_parameter_gets_a_gradient(meta_layer, pre_svd_weight):
    model = small(meta_layer=meta_layer, pre_svd_weight=pre_svd_weight, classes=3)
    logits = model(torch.randn(4, 1, 8, 8))
    assert logits.shape == (4, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(("meta_layer", "pre_svd_weight"), CASES)
def test_the_pre_svd_layer(meta_layer, pre_svd_weight):
    model = small(meta_layer=meta_layer, pre_svd_weight=pre_svd_weight)
    (parameter,) = resolve_parameters(model, model.pre_svd_parameters()).values()
    pools = isinstance(model.pooling, GlobalCovariancePooling)
    assert pools == (meta_layer == "covariance_pooling")
    layer = model.pooling.reduction[0] if pools else model.conv1
    c = 32 if pools else 4
    if pre_svd_weight == "orthogonal":
        assert isinstance(layer, SkewOrthogonalConv2d)
        assert layer.weight is parameter
        assert parameter.shape[:2] == (c, c)
    elif pre_svd_weight == "spectral":
        assert layer.parametrizations.weight.original is parameter
        sigmas = torch.linalg.svdvals(as_matrix(layer.weight.detach()))
        assert sigmas[0].item() == pytest.approx(1, abs=1e-3)
    elif pre_svd_weight == "orthonormal_kernel":
        assert layer.parametrizations.weight.original is parameter
        sigmas = torch.linalg.svdvals(as_matrix(layer.weight.detach()))
        assert torch.allclose(sigmas, torch.ones_like(sigmas), atol=1e-5)
    else:
        assert layer.weight is parameter
    # The other is free.
    assert type(model.conv1) is (nn.Conv2d if pools else type(layer))


@pytest.mark.parametrize("techniques", [["nog"], ["olr"], ["nog", "olr"], ["nou"]])
@pytest.mark.parametrize(("meta_layer", "pre_svd_weight"), CASES)
def test_techniques_act_on_the_pre_svd_layer(meta_layer, pre_svd_weight, techniques):
    model = small(meta_layer=meta_layer, pre_svd_weight=pre_svd_weight)
    targets = resolve_parameters(model, model.pre_svd_parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    attach(optimizer, targets, techniques)
    before = {name: p.detach().clone() for name, p in targets.items()}
    loss = model(torch.randn(4, 1, 8, 8)).square().mean()
    (loss + orthogonal_loss(targets.values())).backward()
    optimizer.step()
    for name, parameter in targets.items():
        assert parameter.isfinite().all()
        if techniques == ["nog"]:
            step = as_matrix((before[name] - parameter.detach()).double()) / 0.01
            sigmas = torch.linalg.svdvals(step)
            assert torch.allclose(sigmas[sigmas > 0.5], torch.ones(1).double(), atol=1e-3)
            assert sigmas[0] > 0.5


@pytest.mark.parametrize(("meta_layer", "pre_svd_weight"), CASES)
def test_saved_and_read_again(meta_layer, pre_svd_weight, tmp_path):
    model = small(meta_layer=meta_layer, pre_svd_weight=pre_svd_weight)
    images = torch.randn(3, 1, 8, 8)
    model(images)
    model.eval().save_pretrained(tmp_path)
    loaded = ResNet.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    assert torch.equal(loaded(images), model(images))


def test_a_constraint_is_never_put_on_fresh_memory(monkeypatch):
    """`from_pretrained` turns `nn.init` off: what is in memory may be anything."""

    def leave(tensor, *_, **__):
        return tensor.data.fill_(torch.nan)

    for name in ("kaiming_uniform_", "normal_", "uniform_"):
        monkeypatch.setattr(nn.init, name, leave)
    assert nn.Conv2d(1, 1, 1).weight.isnan().all()
    for weight in WEIGHT_CONSTRAINTS:
        assert pre_svd_convolution(3, 4, 3, stride=1, weight=weight).weight.isfinite().all()


@pytest.mark.parametrize("meta_layer", META_LAYERS)
def test_the_probe_takes_its_meta_layers(meta_layer):
    model = small(meta_layer=meta_layer, meta_eps=0.5)
    names = {"none": [], "decorrelated_batch_norm": ["bn1"]}.get(meta_layer, ["pooling.root"])
    assert model.meta_layers == dict.fromkeys(names, 0.5)
    if not names:
        return
    seen = []
    module = model.get_submodule(names[0])
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    with ConditioningProbe(model, inputs=model.meta_layers) as probe:
        model(torch.randn(4, 1, 8, 8))
        measured = probe.record()[f"conditioning/{names[0]}/covariance/condition"]
    assert measured == covariance_conditioning(seen[0], eps=0.5).condition


@pytest.mark.skipif(
    torch.__version__.startswith("2.8."), reason="PyTorch 2.8 loses what is made in a context"
)
@pytest.mark.parametrize("meta_layer", META_LAYERS)
def test_exported_for_any_batch(meta_layer):
    model = small(meta_layer=meta_layer).eval()
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(model, (torch.randn(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    images = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(program.module()(images), model(images))


@pytest.mark.parametrize("meta_layer", META_LAYERS[1:])
def test_it_learns(meta_layer):
    model = small(meta_layer=meta_layer, classes=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    # Vertical against horizontal stripes, at any phase.
    stripes = (torch.arange(8) // 2 % 2 * 2.0 - 1).expand(16, 1, 8, 8)
    phases = torch.randint(0, 4, (16,))
    images = torch.stack([x.roll(int(p), 2) for x, p in zip(stripes, phases, strict=True)])
    images = torch.cat([images, images.mT]) + 0.1 * torch.randn(32, 1, 8, 8)
    labels = torch.arange(2).repeat_interleave(16)
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(1) == labels).float().mean() == 1


def test_bad_arguments():
    with pytest.raises(ValueError, match="depth must be one of 10, 18, 34, 50, 101, got 20"):
        small(depth=20)
    with pytest.raises(ValueError, match="stem must be one of small, large, got 'tiny'"):
        small(stem="tiny")
    with pytest.raises(ValueError, match=r"meta_layer must be one of none, .*, got 'svd'"):
        small(meta_layer="svd")
    with pytest.raises(ValueError, match=r"method must be one of auto, .*, got 'isqrt_cov'"):
        small(meta_layer="decorrelated_batch_norm", meta_method="isqrt_cov")
    with pytest.raises(ValueError, match="image_channels must be 1 or 3, got 2"):
        small(image_channels=2)
    with pytest.raises(ValueError, match="classes must be at least 1, got 0"):
        small(classes=0)
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        small(image_size=0)
    with pytest.raises(ValueError, match=r"image_size must be above 16 .* large stem.* got 16"):
        small(image_size=16, stem="large", meta_layer="covariance_pooling")
    with pytest.raises(
        ValueError, match="one of free, orthogonal, orthonormal_kernel, spectral, got 'unitary'"
    ):
        small(pre_svd_weight="unitary")


def test_shapes_of_inputs_are_checked():
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\), got \(2, 3, 8, 8\)"):
        small()(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_normalised_pixels_are_those_of_torchvision(normalisation):
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    model = ResNet(depth=10, image_size=32, base_channels=4, normalisation=normalisation).eval()
    expected = functional.normalize(pixels / 255, *NORMALISATIONS[normalisation])
    plain = ResNet(depth=10, image_size=32, base_channels=4).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.allclose(model(pixels / 127.5 - 1), plain(expected), atol=1e-4)


def test_normalisation_of_cifar_is_that_of_the_official_code():
    assert NORMALISATIONS["cifar10"] == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
    black = torch.full((1, 3, 32, 32), -1.0)
    model = ResNet(depth=10, image_size=32, base_channels=4, normalisation="cifar10")
    seen = []
    model.conv1.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    model.eval()(black)
    assert seen[0][0, :, 0, 0].tolist() == pytest.approx([-2.4291, -2.4183, -2.2214], abs=1e-4)


def test_scales_start_at_one_or_are_drawn_as_in_the_official_code():
    options = {"meta_layer": "decorrelated_batch_norm", "base_channels": 64}
    assert torch.equal(small(**options).bn1.weight, torch.ones(64))
    drawn = small(**options, meta_scale="uniform").bn1
    assert 0 <= drawn.weight.min() < 0.2
    assert 0.8 < drawn.weight.max() < 1
    assert not drawn.bias.any()
    with pytest.raises(ValueError, match="meta_scale must be one of ones, uniform, got 'zeros'"):
        small(meta_scale="zeros")


def test_normalisation_is_of_three_colours():
    for name in NORMALISATIONS:
        with pytest.raises(ValueError, match=f"normalisation {name} needs 3 image_channels, got 1"):
            ResNet(image_channels=1, normalisation=name)
