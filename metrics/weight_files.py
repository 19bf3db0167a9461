"""Files of published network weights, found on this machine and never downloaded."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights that somebody published.

    Attributes:
        url: Where it was published. The file's name ends in the first digits of its SHA-256, as
            PyTorch's own files do.
    """

    url: str

    @property
    def file_name(self) -> str:
        """The name under which PyTorch and others keep the file."""
        return self.url.rsplit("/", 1)[-1]

    def locate(self, path: str | Path | None = None) -> Path:
        """The file, where it is.

        Args:
            path: The file, or the folder that it is in; by default torch's hub cache.

        Raises:
            FileNotFoundError: If it is not there.
        """
        place = Path(torch.hub.get_dir(), "checkpoints") if path is None else Path(path)
        file = place / self.file_name if path is None or place.is_dir() else place
        if not file.is_file():
            raise FileNotFoundError(
                f"there are no weights at {file}: expected the file {self.file_name}, published "
                f"at {self.url}; nothing is downloaded, so put it there or give its path"
            )
        return file

    def is_copied_at(self, file: Path) -> bool:
        """Return True if a file has the published contents, by the digest in its published name."""
        digits = re.search(r"-([0-9a-f]{8,})\.\w+$", self.file_name)
        if digits is None:
            return False
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest().startswith(digits[1])


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file, by name.

    Raises:
        ValueError: If the file is damaged or holds something else.
    """
    try:
        # unpickling anything but tensors could run code of the file
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # each kind of damage raises its own
        raise ValueError(f"{file} must be a file of PyTorch tensors: {error}") from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(x, Tensor) for key, x in state.items()
    ):
        raise ValueError(f"{file} must hold a dictionary of tensors, got {type(state).__name__}")
    return state


def load_state(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Puts all tensors of a file into a network.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    try:
        network.load_state_dict(state)
    except Exception as error:  # tensors that are sparse, for example, raise others
        raise ValueError(f"{file} holds the weights of another network: {error}") from error
