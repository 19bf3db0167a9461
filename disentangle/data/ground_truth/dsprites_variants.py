"""dSprites in colour, on noise and on a picture, drawn while images are fetched."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disentangle.data.base import Integers, checked_integer
from disentangle.data.ground_truth.dsprites import DSprites
from disentangle.data.images.decoding import open_image
from disentangle.data.images.grey_levels import read_levels
from disentangle.data.official import refuse_broken

THUMBNAIL = (350, 274)  # the published width and height of the Scream, at most


class _SeededDSprites(DSprites):
    """dSprites in RGB, with draws that belong to each image."""

    def __init__(self, *, path: str | Path, verify: bool = True, seed: int = 0) -> None:
        self._seed = _checked_seed(seed)
        super().__init__(path=path, verify=verify)
        self.image_channels = 3


class ColorDSprites(_SeededDSprites):
    """dSprites whose sprite has a random colour; RGB, factors as in `DSprites`.

    Each channel of the colour is uniform in [0.5, 1]. It belongs to the image: a pure function of
    the seed and the index, and no factor.

    Source: Locatello et al., 2019, https://arxiv.org/abs/1811.12359. There, an image gets another
    colour each time it is fetched.

    Args:
        path: The npz file of dSprites, or the folder where it lies under its official name.
        verify: Compare with the published checksum, as in `DSprites`.
        seed: Seed for the colours, from 0 to 2**63 - 1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file or the seed is not as it should be.

    Examples:
        >>> ColorDSprites(path="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no dsprites_ndarray_...npz at nowhere; get it from dsprites-dataset ...
    """

    def _images(self, indices: Integers) -> Tensor:
        sprites = super()._images(indices).numpy()  # (N, 1, H, W)
        colours = [draw.uniform(0.5, 1, 3) for draw in _generators(self._seed, indices)]
        scale = np.reshape(colours, (-1, 3, 1, 1))  # (N, 3, 1, 1), also of no images
        return torch.from_numpy(np.rint(sprites * scale).astype(np.uint8))


class NoisyDSprites(_SeededDSprites):
    """dSprites whose background is noise; RGB, factors as in `DSprites`.

    Each channel of each background pixel is uniform over 0 … 255; the sprite is white. The noise
    belongs to the image: a pure function of the seed and the index.

    Source: Locatello et al., 2019, https://arxiv.org/abs/1811.12359. There, an image gets other
    noise each time it is fetched.

    Args:
        path: The npz file of dSprites, or the folder where it lies under its official name.
        verify: Compare with the published checksum, as in `DSprites`.
        seed: Seed for the noise, from 0 to 2**63 - 1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file or the seed is not as it should be.

    Examples:
        >>> NoisyDSprites(path="nowhere")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: no dsprites_ndarray_...npz at nowhere; get it from dsprites-dataset ...
    """

    def _images(self, indices: Integers) -> Tensor:
        sprites = super()._images(indices).numpy()  # (N, 1, H, W)
        size = self.image_size
        images = np.empty((len(indices), 3, size, size), dtype=np.uint8)
        for image, draw in zip(images, _generators(self._seed, indices), strict=True):
            image[:] = draw.integers(256, size=image.shape, dtype=np.uint8)
        return torch.from_numpy(np.maximum(images, sprites))


class ScreamDSprites(_SeededDSprites):
    """dSprites laid over a picture, whose colours it inverts; RGB, factors as in `DSprites`.

    The background is a random crop of the picture, mixed half and half with a random colour. Crop
    and colour belong to the image: a pure function of the seed and the index.

    Source: Locatello et al., 2019, https://arxiv.org/abs/1811.12359, with Munch's The Scream as the
    picture. There, an image gets another crop and colour each time it is fetched.

    Args:
        path: The npz file of dSprites, or the folder where it lies under its official name.
        picture: The file of the picture, which is shrunk to 350 × 274 pixels at most; a PNG, JPEG
            or the like that is then larger than an image both ways.
        verify: Compare dSprites with its published checksum, as in `DSprites`.
        seed: Seed for the crops and colours, from 0 to 2**63 - 1.

    Raises:
        FileNotFoundError: If one of the files is missing.
        ValueError: If a file or the seed is not as it should be.

    Examples:
        >>> ScreamDSprites(path="nowhere", picture="nowhere.jpg")
        Traceback (most recent call last):
        FileNotFoundError: no picture at nowhere.jpg
    """

    def __init__(
        self, *, path: str | Path, picture: str | Path, verify: bool = True, seed: int = 0
    ) -> None:
        self._picture = _read_picture(Path(picture))
        super().__init__(path=path, verify=verify, seed=seed)
        self.paths = (*self.paths, Path(picture))
        height, width = self._picture.shape[:2]
        if min(height, width) <= self.image_size:
            raise ValueError(
                f"{picture} must be larger than {self.image_size} × {self.image_size} pixels, "
                f"got {width} × {height} (once within {THUMBNAIL[0]} × {THUMBNAIL[1]})"
            )

    def _images(self, indices: Integers) -> Tensor:
        sprites = super()._images(indices).numpy()  # (N, 1, H, W)
        images = np.empty((len(indices), 3, *sprites.shape[2:]), dtype=np.uint8)
        for image, draw in zip(images, _generators(self._seed, indices), strict=True):
            image[:] = np.rint(255 * self._background(draw)).transpose(2, 0, 1)  # (3, H, W)
        return torch.from_numpy(np.where(sprites > 0, 255 - images, images))

    def _background(self, draw: np.random.Generator) -> NDArray[np.float64]:
        """Random crop `(H, W, 3)` of the picture, mixed with a colour, between 0 and 1."""
        size = self.image_size
        top, left = draw.integers(0, np.subtract(self._picture.shape[:2], size))
        crop = self._picture[top : top + size, left : left + size] / 255
        return (crop + draw.uniform(0, 1, 3)) / 2


def _checked_seed(seed: int) -> int:
    if checked_integer("seed", seed, 0) >= 2**63:
        raise ValueError(f"seed must be less than 2**63, got {seed}")
    return seed


def _generators(seed: int, indices: Integers) -> Iterator[np.random.Generator]:
    """Yield a generator for each image, so that no draw depends on the batch."""
    for index in indices.tolist():
        yield np.random.Generator(np.random.Philox(key=seed << 64 | index))


def _read_picture(path: Path) -> NDArray[np.uint8]:
    """Read the picture, uint8 `(H, W, 3)`, within the published size."""
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    with refuse_broken(path, "a picture"), open_image(path) as image:
        picture = read_levels(image).to_8_bits(image)
        picture.thumbnail(THUMBNAIL)
        return np.array(picture.convert("RGB"))
