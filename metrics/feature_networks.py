"""Feature networks and perceptual distances for metrics of generators.

A metric takes a callable; what is here makes callables of published networks, whose weights are
read from files on this machine, and of random ones, for tests and for work without any weights.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from disentangle.metrics.features import (
    MINIMUM_SIZE,
    NOT_COMPARABLE,
    FeatureNetwork,
    PerceptualDistance,
)
from disentangle.metrics.inputs import check_at_least
from disentangle.metrics.weight_files import PublishedWeights, load_state, read_state

FID_SIZE = 299  # that FID's Inception sees images in, in pixels
LpipsTrunk = Literal["alex", "vgg", "squeeze"]
LPIPS_TRUNKS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
LPIPS_MINIMUM_SIZES = {"alex": 31, "vgg": 16, "squeeze": 17}  # below, nothing is left to pool


def random_features(seed: int = 0, *, dim: int = 64) -> FeatureNetwork:
    """Three random convolutions and the mean over the image: features that need no file.

    They tell images apart, but not as people do: good for tests and to compare models with one
    another, useless beside published values.

    Args:
        seed: Seed for the weights.
        dim: Number of features.

    Raises:
        ValueError: If `dim` is not positive.

    Examples:
        >>> random_features(dim=8)(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 8])
    """
    check_at_least(1, dim=dim)
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for narrow, wide in ((3, 32), (32, 64), (64, dim)):
        layer = nn.utils.skip_init(nn.Conv2d, narrow, wide, 3, stride=2, padding=1)
        # He's scale keeps the size of the signal; biases tell dark images from bright ones
        nn.init.kaiming_normal_(layer.weight, generator=generator)
        nn.init.normal_(layer.bias, std=0.1, generator=generator)
        layers += [layer, nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
    return FeatureNetwork(
        network, name=f"random (seed {seed})", caveat=f"random features, {NOT_COMPARABLE}"
    )


def squared_feature_distance(network: FeatureNetwork) -> PerceptualDistance:
    """The squared Euclidean distance of the features: a perceptual distance that is not LPIPS.

    Examples:
        >>> images = torch.linspace(-1, 1, 256).view(1, 1, 16, 16)
        >>> squared_feature_distance(random_features())(images, images)
        tensor([0.])
    """
    return PerceptualDistance(
        _SquaredDistance(network),
        name=f"squared distance, {network.name}",
        caveat=network.caveat or f"squared distance of features, {NOT_COMPARABLE}",
    )


def load_fid_inception(
    path: str | Path | None = None,
    *,
    size: int = FID_SIZE,
    antialias: bool = False,
    eight_bit: bool = True,
) -> FeatureNetwork:
    """The 2,048 features of FID's Inception, from the weights that pytorch-fid publishes.

    As pytorch-fid does it, https://github.com/mseitzer/pytorch-fid: images are resized bilinearly
    to 299 × 299 without antialiasing, pixel centres at halves. torch-fidelity and the original
    resize as TensorFlow 1 did, with a shift of up to half a pixel, so that their values differ
    slightly. Larger images lose detail to aliasing, which Parmar et al. 2022,
    https://arxiv.org/abs/2104.11222, mend with `antialias` (and another kernel).

    Args:
        path: The file, or the folder that it is in; by default torch's hub cache.
        size: Height and width that images are resized to.
        antialias: Whether images are smoothed before they are made smaller.
        eight_bit: Whether images are rounded to 256 levels first, as image files are.

    Raises:
        FileNotFoundError: If the file is not there; it is never downloaded.
        ValueError: If the file holds something else. One with the right shapes but other contents
            is taken; `caveat` says so, and also if images are not prepared as by default.
    """
    from disentangle.metrics.fid_inception import FID_INCEPTION_WEIGHTS, build_fid_inception

    file = FID_INCEPTION_WEIGHTS.locate(path)
    with torch.random.fork_rng(devices=[]):
        network = build_fid_inception()
    load_state(network, read_state(file), file)
    network.fc = nn.Identity()
    preparation = _Preparation(size=size, antialias=antialias, eight_bit=eight_bit)
    name, caveat = "FID Inception", _file_caveat(FID_INCEPTION_WEIGHTS, file)
    if (size, antialias, eight_bit) != (FID_SIZE, False, True):
        name += f" (size {size}, antialias {antialias}, eight_bit {eight_bit})"
        caveat = caveat or f"images not prepared as published, {NOT_COMPARABLE}"
    return FeatureNetwork(nn.Sequential(preparation, network), name=name, caveat=caveat)


def load_torchvision_features(
    model: str = "resnet50",
    path: str | Path | None = None,
    *,
    version: str = "DEFAULT",
    size: int | None = None,
) -> FeatureNetwork:
    """Features that enter the last layer of one of torchvision's classifiers.

    Images are resized bilinearly, with antialiasing, to the size that the classifier is evaluated
    at, without the cropping of its recipe, and normalised as it expects.

    Args:
        model: Its name in `torchvision.models`.
        path: The file, or the folder that it is in; by default torch's hub cache.
        version: The name of the weights, such as `"IMAGENET1K_V1"`.
        size: Height and width that images are resized to; by default that of the recipe.

    Raises:
        FileNotFoundError: If the file is not there; it is never downloaded.
        ValueError: If torchvision has no such classifier or version, if it does not end in a
            linear layer, or if the file holds something else. One with the right shapes but other
            contents is taken, and said so in `caveat`.
    """
    weights = _torchvision_weights(model, version)
    published = PublishedWeights(weights.url)
    file = published.locate(path)
    network = _build_torchvision(model)
    load_state(network, read_state(file), file)
    recipe = weights.transforms()
    size = size or recipe.crop_size[0]
    preparation = _Preparation(size=size, antialias=True, mean=recipe.mean, std=recipe.std)
    return FeatureNetwork(
        nn.Sequential(preparation, _without_last_layer(network, model)),
        name=f"torchvision {model} {weights.name} at {size} pixels",
        caveat=_file_caveat(published, file),
    )


def load_lpips(
    trunk: LpipsTrunk = "vgg", path: str | Path | None = None, *, size: int | None = None
) -> PerceptualDistance:
    """LPIPS, the distance of images that was fitted to what people see as different.

    Zhang et al., CVPR 2018, https://arxiv.org/abs/1801.03924, version 0.1. The linear layers come
    with the `lpips` package; the trunk is torchvision's ImageNet classifier. Perceptual path
    lengths are published with `vgg`.

    Args:
        trunk: `"vgg"`, `"alex"` or `"squeeze"`.
        path: The trunk's file, or the folder that it is in; by default torch's hub cache.
        size: Height and width that images are resized to, bilinearly and with antialiasing; by
            default they keep their own. `alex` needs 31 pixels, `squeeze` 17, `vgg` 16.

    Raises:
        FileNotFoundError: If the file is not there; it is never downloaded.
        ValueError: If the trunk is unknown or the file holds something else. One with the right
            shapes but other contents is taken, and said so in `caveat`.
    """
    if trunk not in LPIPS_TRUNKS:
        raise ValueError(f"trunk must be one of {', '.join(LPIPS_TRUNKS)}, got {trunk!r}")
    published = PublishedWeights(_torchvision_weights(LPIPS_TRUNKS[trunk], "IMAGENET1K_V1").url)
    file = published.locate(path)
    network = _build_lpips(trunk)
    # torchvision's "features.3.weight" is "slice2.3.weight" or the like there
    names = {f"features.{name.split('.', 1)[1]}": name for name in network.net.state_dict()}
    features = {k: v for k, v in read_state(file).items() if k.startswith("features.")}
    load_state(network.net, {names.get(k, k): v for k, v in features.items()}, file)
    return PerceptualDistance(
        network if size is None else _Resized(network, size),
        name=f"LPIPS {trunk}" if size is None else f"LPIPS {trunk} at {size} pixels",
        caveat=_file_caveat(published, file),
        minimum_size=LPIPS_MINIMUM_SIZES[trunk] if size is None else MINIMUM_SIZE,
    )


class _Preparation(nn.Module):
    """From images in `[-1, 1]` to what a network was trained on.

    `mean` and `std` are those of images in `[0, 1]`.
    """

    def __init__(
        self,
        *,
        size: int,
        antialias: bool,
        eight_bit: bool = False,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        check_at_least(MINIMUM_SIZE, size=size)
        self.size, self.antialias, self.eight_bit = size, antialias, eight_bit
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 2 * torch.tensor(mean)[:, None, None] - 1)
        self.register_buffer("std", 2 * torch.tensor(std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        if self.eight_bit:
            images = ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
        return (_resize(images, self.size, antialias=self.antialias) - self.mean) / self.std


class _Resized(nn.Module):
    """A distance of images that are resized first."""

    def __init__(self, distance: nn.Module, size: int) -> None:
        super().__init__()
        check_at_least(MINIMUM_SIZE, size=size)
        self.distance, self.size = distance, size

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return self.distance(*(_resize(x, self.size, antialias=True) for x in (images, others)))


class _SquaredDistance(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return (self.network(images) - self.network(others)).square().sum(dim=1)


def _resize(images: Tensor, size: int, *, antialias: bool) -> Tensor:
    return functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias
    )


def _file_caveat(published: PublishedWeights, file: Path) -> str:
    if published.is_copied_at(file):
        return ""
    return f"features of weights other than {published.file_name}, {NOT_COMPARABLE}"


def _torchvision_weights(model: str, version: str) -> Any:
    """The entry of torchvision's list of weights."""
    from torchvision import models

    # detectors and the like would download the weights of their backbone
    if model not in models.list_models(module=models):
        raise ValueError(f"model must be one of torchvision's classifiers, got {model!r}")
    versions = models.get_model_weights(model)
    if version not in versions.__members__:
        raise ValueError(
            f"version must be one of {', '.join(versions.__members__)} for {model}, got {version!r}"
        )
    return versions[version]


def _build_torchvision(model: str) -> nn.Module:
    from torchvision import models

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)  # of another initialisation
        network = models.get_model(model, weights=None)
    if hasattr(network, "transform_input"):
        # Inception and GoogLeNet undo ImageNet's normalisation, but only when built with weights
        network.transform_input = True
    return network


def _without_last_layer(network: nn.Module, model: str) -> nn.Module:
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(f"model must end in a linear layer, {model!r} has none")
    network.set_submodule(linear[-1], nn.Identity())
    return network


def _build_lpips(trunk: LpipsTrunk) -> Any:
    """LPIPS with its linear layers and a random trunk."""
    import lpips

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # of torchvision's old arguments
        # without `pnet_rand` the package would download the trunk
        return lpips.LPIPS(net=trunk, pnet_rand=True, verbose=False)
