"""The official MPI3D files."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from disentangle.data.base import GroundTruthData, Integers
from disentangle.data.ground_truth.npz import map_member
from disentangle.data.official import MappedArray, OfficialFile, refuse_broken
from disentangle.data.pixels import channels_first

FACTOR_NAMES = (
    "object_color",
    "object_shape",
    "object_size",
    "camera_height",
    "background_color",
    "first_dof",
    "second_dof",
)
# By the number of images: the published files, and those without the held-out colours and shapes.
FACTOR_SIZES = {1_036_800: (6, 6, 2, 3, 3, 40, 40), 460_800: (4, 4, 2, 3, 3, 40, 40)}
IMAGE_SHAPE = (64, 64, 3)
VARIANTS = ("toy", "realistic", "real")


class MPI3D(GroundTruthData):
    """A robot arm that holds an object: the official pixels, rendered or photographed.

    Factors: `object_color` 6, `object_shape` 6, `object_size` 2, `camera_height` 3,
    `background_color` 3, `first_dof` 40 (the horizontal axis), `second_dof` 40 (the vertical one).
    Files of 460,800 images, which disentanglement_lib knows as toy and realistic, have 4 colours
    and 4 shapes, and so has the one of the real complex shapes. RGB, 64 × 64.

    The file is mapped into memory: of its 12 GB only the images asked for are read. So a damaged
    pixel goes unnoticed; the header and the length are checked. No checksum is published.

    Source: Gondal et al., 2019, https://arxiv.org/abs/1906.03292 (disentanglement_dataset by
    rr-learning on GitHub).

    Args:
        path: The npz file, or the folder where it lies under its official name.
        variant: Official name of the variant to find in a folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or not of the official format, or there is no such
            variant.

    Examples:
        >>> MPI3D(path="nowhere", variant="real")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no mpi3d_real.npz at nowhere; get it from disentanglement_dataset ...
    """

    def __init__(
        self, *, path: str | Path, variant: Literal["toy", "realistic", "real"] = "toy"
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
        official = OfficialFile(
            name=f"mpi3d_{variant}.npz",
            project="disentanglement_dataset by rr-learning on GitHub",
        )
        file = official.locate(path)
        with refuse_broken(file, "an MPI3D file"):
            self._stored = map_member(file, "images")
            factor_sizes = _find_factor_sizes(self._stored)
        super().__init__(
            image_size=IMAGE_SHAPE[0],
            image_channels=IMAGE_SHAPE[2],
            factor_names=FACTOR_NAMES,
            factor_sizes=factor_sizes,
        )
        self.paths = (file,)

    def _images(self, indices: Integers) -> Tensor:
        return channels_first(self._stored.open()[indices])


def _find_factor_sizes(stored: MappedArray) -> tuple[int, ...]:
    count, *shape = stored.shape or (0,)
    if count not in FACTOR_SIZES or tuple(shape) != IMAGE_SHAPE:
        counts = " or ".join(map(str, FACTOR_SIZES))
        raise ValueError(f"images must have shape ({counts}, 64, 64, 3), got {stored.shape}")
    return FACTOR_SIZES[count]
