"""The Inception network that FID and KID are defined by.

TensorFlow's Inception v3 of 2015-12-05 in the layout of pytorch-fid,
https://github.com/mseitzer/pytorch-fid. It differs from torchvision's `inception_v3` in three
places: average pooling does not count the zeros of the padding, the last block pools by the maximum
instead of the average, and there are 1008 logits.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.inception import Inception3, InceptionA, InceptionC, InceptionE

from disentangle.metrics.weight_files import PublishedWeights

FID_INCEPTION_WEIGHTS = PublishedWeights(
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
LOGITS = 1008


def build_fid_inception() -> Inception3:
    """The network with random weights; its names and shapes are those of the published file."""
    network = Inception3(
        num_classes=LOGITS, aux_logits=False, transform_input=False, init_weights=False
    )
    network.Mixed_5b = FidInceptionA(192, pool_features=32)
    network.Mixed_5c = FidInceptionA(256, pool_features=64)
    network.Mixed_5d = FidInceptionA(288, pool_features=64)
    network.Mixed_6b = FidInceptionC(768, channels_7x7=128)
    network.Mixed_6c = FidInceptionC(768, channels_7x7=160)
    network.Mixed_6d = FidInceptionC(768, channels_7x7=160)
    network.Mixed_6e = FidInceptionC(768, channels_7x7=192)
    network.Mixed_7b = FidInceptionE(1280, pool=average_pool)
    network.Mixed_7c = FidInceptionE(2048, pool=maximum_pool)
    return network


def average_pool(x: Tensor) -> Tensor:
    """Mean of the 3 × 3 neighbours that exist."""
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum_pool(x: Tensor) -> Tensor:
    """Maximum of the 3 × 3 neighbours."""
    return functional.max_pool2d(x, 3, stride=1, padding=1)


class FidInceptionA(InceptionA):
    """torchvision's block at 35 × 35 with the other pooling."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        return [
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(average_pool(x)),
        ]


class FidInceptionC(InceptionC):
    """torchvision's block at 17 × 17 with the other pooling."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        h = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return [
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(h)),
            self.branch_pool(average_pool(x)),
        ]


class FidInceptionE(InceptionE):
    """torchvision's block at 8 × 8 with a pooling of choice."""

    def __init__(self, in_channels: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__(in_channels)
        self.pool = pool

    def _forward(self, x: Tensor) -> list[Tensor]:
        h = self.branch3x3_1(x)
        k = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(h), self.branch3x3_2b(h)], dim=1),
            torch.cat([self.branch3x3dbl_3a(k), self.branch3x3dbl_3b(k)], dim=1),
            self.branch_pool(self.pool(x)),
        ]
