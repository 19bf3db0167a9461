"""Images in files of their own."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from disentangle.data.base import Integers
from disentangle.data.images.checking import find_decodable
from disentangle.data.images.decoding import Decoder


class ImageFiles:
    """Files of images, decoded when they are asked for.

    Args:
        paths: The files.
        decoder: Decoder of the files.
        folder: Their folder, for messages.
        check: Decode every file now, in full, since only that finds a truncated one.
        on_corrupt: Action for a file that cannot be decoded: `error` raises, `skip` leaves it out.

    Attributes:
        kept: Indices of the given `paths` that are not left out, int64 `(N,)`.
        paths: The files that are not left out.
        skipped: The files that are.

    Raises:
        ValueError: If an image is corrupt (or all are, with `skip`), or if there is no such
            `on_corrupt`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        decoder: Decoder,
        *,
        folder: Path,
        check: bool,
        on_corrupt: str,
    ) -> None:
        self._decoder = decoder
        self.kept = find_decodable(
            lambda index: self._problem(paths[index]),
            len(paths),
            place=folder,
            check=check,
            on_corrupt=on_corrupt,
        )
        kept = frozenset(self.kept.tolist())
        self.paths = tuple(paths[index] for index in self.kept)
        self.skipped = tuple(path for index, path in enumerate(paths) if index not in kept)

    def load(self, indices: Integers) -> Tensor:
        """Decode the images uint8 `(N, C, H, W)` of valid indices `(N,)` into `paths`.

        Raises:
            ValueError: If a file cannot be decoded.
        """
        paths = [self.paths[index] for index in indices]
        return self._decoder.decode_batch(paths, paths)

    def _problem(self, path: Path) -> str | None:
        try:
            self._decoder.decode(path, path)
        except ValueError as error:
            return str(error)
        return None
