"""Residual networks for image classification, with an SVD meta-layer near the input or the output.

Source: He, Zhang, Ren and Sun, "Deep Residual Learning", CVPR 2016,
https://arxiv.org/abs/1512.03385, in torchvision's blocks and under its names; the meta-layers where
Song, Sebe and Wang, ECCV 2022, https://arxiv.org/abs/2207.02119, have them.
"""

from collections.abc import Collection
from typing import Any, Literal, get_args

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from disentangle.models.layers.covariance_pooling import GlobalCovariancePooling, PoolingMethod
from disentangle.models.layers.decorrelated_batch_norm import DecorrelatedBatchNorm2d, InitialScale
from disentangle.models.layers.pre_svd_convolution import pre_svd_convolution
from disentangle.models.shapes import check_image_channels, check_images, check_positive
from disentangle.orthogonality import WeightConstraint

MetaLayer = Literal["none", "decorrelated_batch_norm", "covariance_pooling"]
Stem = Literal["small", "large"]
Depth = Literal[10, 18, 34, 50, 101]
Normalisation = Literal["none", "imagenet", "cifar10", "cifar100"]

# Blocks of each of the four stages; from 50 layers on they are bottlenecks.
BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
FIRST_BOTTLENECK_DEPTH = 50
# Mean and standard deviation of each colour, of pixels in [0, 1].
NORMALISATIONS = {
    # That of torchvision's weights.
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # The official code's: means over the images of the deviation within one. Over all pixels the
    # deviations are 0.247, 0.2435 and 0.2616.
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
# How often an image is halved before the fourth stage.
HALVINGS = {"small": 2, "large": 4}


class ResNet(ModelMixin, ConfigMixin):
    """A residual network that classifies images.

    The small stem is a 3 × 3 convolution and no pooling, for 32 pixels and about; the large one a
    7 × 7 convolution of stride 2 and a max-pooling of stride 2, for 224. With the large stem, three
    colours, 64 base channels and no meta-layer the state dict is torchvision's.

    The meta-layer, and the Pre-SVD layer whose output it decomposes:

    ========================= ============================================== =======================
    `meta_layer`              where                                          Pre-SVD layer
    ========================= ============================================== =======================
    `decorrelated_batch_norm` in place of the first norm, `bn1`              `conv1`
    `covariance_pooling`      in place of average pooling; to 4 base         its 1 × 1 convolution,
                              channels, and `layer4` keeps the resolution    `pooling.reduction.0`
    `none`                    there is none                                  `conv1`
    ========================= ============================================== =======================

    Args:
        depth: Layers with weights, as papers count; 10 has one basic block per stage.
        image_size: Height and width of the images in pixels.
        image_channels: 1 for grey images, 3 for colour.
        classes: How many there are to tell apart.
        stem: `small` or `large`.
        meta_layer: The SVD meta-layer.
        meta_method: Method of its matrix root, see `matrix_sqrt`; with covariance pooling
            `isqrt_cov`, too.
        meta_eps: What it adds to the variance in every direction.
        meta_scale: Initial scale `γ` of decorrelated batch normalisation: `ones`, or `uniform` in
            `[0, 1)` as in the official code.
        base_channels: Channels of the first stage.
        normalisation: Normalisation of each colour by its mean and standard deviation: `imagenet`,
            as torchvision's weights expect; `cifar10`, which the official code uses for CIFAR-100
            too; or `cifar100`. The images given are in `[-1, 1]` in any case.
        pre_svd_weight: Constraint of the Pre-SVD layer: `free`; `orthogonal`, a skew-orthogonal
            convolution; `orthonormal_kernel`, a plain convolution whose kernel as a matrix
            `(out, in·k·k)` has orthonormal rows or columns; or `spectral` (spectral norm 1).

    Raises:
        ValueError: If a name or a depth is unknown, a number is not positive, or the image is too
            small for a covariance.

    Examples:
        >>> model = ResNet(depth=10, image_size=8, image_channels=1, classes=10, base_channels=4)
        >>> model(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
        >>> model.pre_svd_parameters()
        ['conv1.weight']
    """

    @register_to_config
    def __init__(
        self,
        *,
        depth: Depth = 18,
        image_size: int = 32,
        image_channels: int = 3,
        classes: int = 10,
        stem: Stem = "small",
        meta_layer: MetaLayer = "none",
        meta_method: PoolingMethod = "auto",
        meta_eps: float = 1e-2,
        meta_scale: InitialScale = "ones",
        base_channels: int = 64,
        normalisation: Normalisation = "none",
        pre_svd_weight: WeightConstraint = "free",
    ) -> None:
        super().__init__()
        _check_choice("normalisation", normalisation, get_args(Normalisation))
        _check_choice("depth", depth, BLOCKS)
        _check_choice("stem", stem, HALVINGS)
        _check_choice("meta_layer", meta_layer, get_args(MetaLayer))
        _check_choice("meta_scale", meta_scale, get_args(InitialScale))
        check_image_channels(image_channels)
        check_positive(image_size=image_size, classes=classes, base_channels=base_channels)
        pools_covariance = meta_layer == "covariance_pooling"
        if pools_covariance:
            _check_positions(image_size, stem)
        if normalisation != "none":
            if image_channels != 3:
                raise ValueError(
                    f"normalisation {normalisation} needs 3 image_channels, got {image_channels}"
                )
            mean, std = (torch.tensor(x)[:, None, None] for x in NORMALISATIONS[normalisation])
            # From [-1, 1]: ((x + 1) / 2 - mean) / std. Not saved: torchvision's files lack them.
            self.register_buffer("pixel_scale", 0.5 / std, persistent=False)
            self.register_buffer("pixel_shift", (0.5 - mean) / std, persistent=False)
        kernel_size, stride = (3, 1) if stem == "small" else (7, 2)
        first_weight = "free" if pools_covariance else pre_svd_weight
        self.conv1 = pre_svd_convolution(
            image_channels, base_channels, kernel_size, stride=stride, weight=first_weight
        )
        meta: dict[str, Any] = {"method": meta_method, "eps": meta_eps}
        self.bn1: nn.Module = nn.BatchNorm2d(base_channels)
        if meta_layer == "decorrelated_batch_norm":
            self.bn1 = DecorrelatedBatchNorm2d(base_channels, initial_scale=meta_scale, **meta)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "large" else nn.Identity()
        channels = self._make_stages(depth, base_channels, last_stride=1 if pools_covariance else 2)
        self.pooling: nn.Module = nn.AdaptiveAvgPool2d(1)
        if pools_covariance:
            self.pooling = GlobalCovariancePooling(
                channels, reduced_channels=4 * base_channels, weight=pre_svd_weight, **meta
            )
            channels = self.pooling.out_features
        self.fc = nn.Linear(channels, classes)

    def _make_stages(self, depth: int, base_channels: int, last_stride: int) -> int:
        """Builds `layer1` to `layer4`, drawn as He et al. do; their channels at the end."""
        # Here, since torchvision takes long to import.
        from torchvision.models.resnet import BasicBlock, Bottleneck

        block = Bottleneck if depth >= FIRST_BOTTLENECK_DEPTH else BasicBlock
        channels = base_channels
        for i, (count, stride) in enumerate(
            zip(BLOCKS[depth], (1, 2, 2, last_stride), strict=True)
        ):
            width = base_channels * 2**i
            stage = make_stage(block, channels, width, count, stride)
            for module in stage.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            self.add_module(f"layer{i + 1}", stage)
            channels = width * block.expansion
        return channels

    def forward(self, images: Tensor) -> Tensor:
        """The logits `(N, classes)` of images `(N, C, H, W)`."""
        check_images(images, self.config.image_channels, self.config.image_size)
        if self.config.normalisation != "none":
            images = images * self.pixel_scale + self.pixel_shift
        h = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        return self.fc(self.pooling(h).flatten(1))  # (N, C, 1, 1) -> (N, C)

    def pre_svd_parameters(self) -> list[str]:
        """The name of the parameter that the techniques act on: the Pre-SVD layer's weight.

        Of a constrained weight the name stands for the free parameter behind it, which is what
        `resolve_parameters` finds.
        """
        if isinstance(self.pooling, GlobalCovariancePooling):
            return ["pooling.reduction.0.weight"]
        return ["conv1.weight"]

    @property
    def meta_layers(self) -> dict[str, float]:
        """The module that decomposes the covariance of its input, by name, with its eps.

        As `ConditioningProbe` takes them. The norm decomposes one covariance of the whole batch;
        the pooling one of each image, while the probe finds that of all images together.
        """
        if isinstance(self.pooling, GlobalCovariancePooling):
            return {"pooling.root": self.pooling.root.eps}
        if isinstance(self.bn1, DecorrelatedBatchNorm2d):
            return {"bn1": self.bn1.eps}
        return {}


def make_stage(block: Any, in_channels: int, width: int, count: int, stride: int) -> nn.Sequential:
    """Blocks of one resolution, the first with the stride, and a projection where it must have one.

    Args:
        block: torchvision's `BasicBlock` or `Bottleneck`.
        in_channels: Channels that come in.
        width: Channels within a block; `width · expansion` come out.
        count: How many blocks.
        stride: Stride of the first block.
    """
    channels = width * block.expansion
    projection = None
    if stride != 1 or in_channels != channels:
        projection = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
        )
    first = block(in_channels, width, stride, projection)
    return nn.Sequential(first, *(block(channels, width) for _ in range(count - 1)))


def _check_choice(name: str, value: object, choices: Collection[object]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {value!r}")


def _check_positions(image_size: int, stem: Stem) -> None:
    reduction = 2 ** HALVINGS[stem]
    if image_size <= reduction:
        raise ValueError(
            f"image_size must be above {reduction} for covariance pooling after a {stem} stem, "
            f"which leaves a single position, got {image_size}"
        )
