"""A folder of images."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from disentangle.data.base import ImageData, Integers
from disentangle.data.images.decoding import Decoder
from disentangle.data.images.files import ImageFiles
from disentangle.data.images.finding import find_images
from disentangle.data.images.left_out import LeftOut
from disentangle.data.images.splitting import choose_split


class ImageFolder(ImageData):
    """All images in a folder and the folders in it, cropped to a square.

    FFHQ (`images1024x1024` or `thumbnails128x128`, with `00000/00000.png` …) and AnimeFace are
    such folders.

    A file is an image if its name ends as that of one, in `.png` or `.JPG` for instance, or
    otherwise if its header says so. Hidden files and folders (their names begin with a dot),
    folders of systems such as `@eaDir` and `__MACOSX`, and other files are left out. The order is
    that of the names and does not depend on the file system.

    An image is turned as its EXIF tag says, laid on white where it is transparent, converted to RGB
    or grey of 8 bits, cropped to its central square and resized (Lanczos); an image smaller than
    `image_size` is enlarged. The first image of an animation, or of a file of several pages, is
    taken. Grey of 16 bits is scaled as the header says: by the `maxval` of a PGM file, from 0 to
    the largest number if it is signed, and inverted in a TIFF file in which 0 is white.

    Every file is decoded once at construction, in full, since only that finds a truncated one;
    `check` turns that off. An image counts as corrupt if it has more pixels than
    `PIL.Image.MAX_IMAGE_PIXELS` (89 million), or grey values that are negative, floating-point
    numbers or of 32 bits. Files are only ever read.

    The splits `train` and `test` share the images out by a hash of each one's name, with the
    folders up to `path`: an image stays where it is when others are added, and on every machine.

    Args:
        path: The folder.
        image_size: Height and width to bring the images to, in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        crop: Side of the central square that is kept, in pixels of the file, which must not be
            smaller; by default the largest.
        split: Split of the images: `all`, or those for `train` or `test`.
        test_fraction: Approximate fraction of the images for the test.
        check: Decode every file now. If not, a corrupt one is an error when it is asked for.
        on_corrupt: Action for a file that cannot be decoded: `error` raises, `skip` leaves it out.

    Attributes:
        paths: The file of each image.
        skipped: The images that were left out.
        left_out: A phrase for each other kind of file or folder that was left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no folder or has no images, if a split has none, if an image is
            corrupt (or all are, with `skip`), or if an argument is not one of those above.
        OSError: If a folder in it cannot be read.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (80, 60)).save(f"{folder}/black.png")
        ...     images = ImageFolder(path=folder, image_size=32)
        ...     images[0].shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        *,
        path: str | Path,
        image_size: int,
        image_channels: int = 3,
        crop: int | None = None,
        split: Literal["all", "train", "test"] = "all",
        test_fraction: float = 0.1,
        check: bool = True,
        on_corrupt: Literal["error", "skip"] = "error",
    ) -> None:
        decoder = Decoder(image_size=image_size, image_channels=image_channels, crop=crop)
        super().__init__(image_size=decoder.image_size, image_channels=decoder.image_channels)
        folder, left_out = Path(path), LeftOut()
        found = choose_split(find_images(folder, left_out), folder, split, test_fraction)
        self.left_out = left_out.describe()
        self._files = ImageFiles(found, decoder, folder=folder, check=check, on_corrupt=on_corrupt)
        self.paths, self.skipped = self._files.paths, self._files.skipped

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def _images(self, indices: Integers) -> Tensor:
        return self._files.load(indices)
